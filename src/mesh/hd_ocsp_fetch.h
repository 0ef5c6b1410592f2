/* hd_ocsp_fetch: asks OCSP responders, over plain HTTP (RFC 6960 A.1): the process's part
 * of core/net/hd_ocsp.h. In workers and the agent alike; nothing blocks.
 *
 *   name -> addresses -> one after the other, until one takes the connection -> answer
 *
 * What isn't status 200 and of the right type is no answer; redirects aren't followed.
 */
#pragma once
#include "core/net/hd_ocsp.h"

extern const hd_ocsp_fetcher_t hd_mesh_ocsp_fetcher;
