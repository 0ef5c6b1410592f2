/* hd_maps: variables that `map`, `geo` and `split_clients` make, on requests. */
#pragma once

/* At process start: they are found from then on. */
void hd_http_maps_register(void);
