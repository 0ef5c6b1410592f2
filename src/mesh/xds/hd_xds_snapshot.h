/* hd_xds_snapshot: what was accepted last, in a file: DeltaDiscoveryResponses, each after
 * its length as a varint. A start without a control plane begins with it. Secrets are
 * left out. In the agent. */
#pragma once
#include "mesh/xds/hd_xds_store.h"

/* Written whole under another name, then renamed: a reader never sees half of it. */
hd_rc_t hd_xds_snapshot_write(const hd_xstore_t *s, hd_str_t path,
                              hd_err_t *err) HD_MUST_CHECK;
/* Gives all of it to the store. HD_DECLINED: there is no such file. */
hd_rc_t hd_xds_snapshot_read(hd_xstore_t *s, hd_str_t path, hd_err_t *err) HD_MUST_CHECK;
