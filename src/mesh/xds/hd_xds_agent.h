/* hd_xds_agent: the agent's part of xDS: reads `xds { … }`, holds store, stream, CA
 * client and snapshot, and follows a reload. */
#pragma once
#include "mesh/xds/hd_xds_ca.h"
#include "mesh/xds/hd_xds_stream.h"

/* Registers the module and the hooks; at process start. */
void hd_xds_register(void);

/* For the admin port; NULL: no xds block here. */
const hd_xds_conf_t *hd_xds_agent_conf(void);
const hd_xstore_t *hd_xds_agent_store(void);
const hd_xstream_t *hd_xds_agent_stream(void);
const hd_xca_t *hd_xds_agent_ca(void); /* NULL: none configured */
