/* hd_admin: the admin port, `admin ADDRESS;`: pages about the running program, served by
 * the agent's process alone, so that no worker is ever held up. Long pages are written in
 * slices, as fast as the client reads. */
#pragma once

/* Registers the directive and the service; at process start. */
void hd_admin_register(void);
