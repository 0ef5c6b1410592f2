/* hd_action_answer: HD_ACT_ANSWER (nginx's return, direct responses), HD_ACT_REDIRECT. */
#pragma once
#include "http/hd_request.h"

extern const hd_action_ops_t hd_answer_action, hd_redirect_action;
/* "/path" on the host that the client named, with the listener's port, as nginx does. */
hd_str_t hd_http_absolute_url(hd_req_t *req, hd_str_t path);
