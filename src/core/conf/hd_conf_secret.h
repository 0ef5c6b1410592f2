/* hd_conf_secret: certificates, keys, roots and revocation lists out of files, as
 * HD_RES_SECRET resources of the batch being built; each distinct set of files once. */
#pragma once
#include "core/conf/hd_conf.h"

/* Absolute paths; empty: none. */
typedef struct {
    hd_str_t cert, key;   /* both or none */
    hd_str_t trust, crls; /* roots to verify peers by */
} hd_conf_secret_t;

/* Reads and checks the files. The error names the file and what is wrong with it. */
hd_rc_t hd_conf_secret_slot(hd_conf_t *cf, const hd_conf_secret_t *files,
                            const hd_slot_t **slot, hd_err_t *err) HD_MUST_CHECK;
