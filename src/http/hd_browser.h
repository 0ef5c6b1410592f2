/* hd_browser: browsers that nginx knows by their User-Agent, for keepalive_disable. */
#pragma once
#include "http/hd_request.h"

/* Is the client one of <browsers> (HD_BROWSER_…), and does what makes it one of them hold
 * for this request? */
bool hd_browser_is_among(const hd_req_t *req, unsigned browsers);
