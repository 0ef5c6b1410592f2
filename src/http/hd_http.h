/* hd_http: what the program calls once, at process start and before configuration is
 * read: the protocol, its actions and its variables are known from then on. */
#pragma once

void hd_http_register(void);
