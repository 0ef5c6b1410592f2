#include "http/hd_service.h"
#include "http/hd_request_int.h"

#define SERVICES_MAX 64

static const hd_service_t *services[SERVICES_MAX];
static uint16_t services_n;

uint16_t hd_service_register(const hd_service_t *s)
{
    hd_bug_on(services_n + 1 >= SERVICES_MAX);
    hd_bug_on(hd_service_find(hd_str_c(s->name)) != 0);
    services[++services_n] = s; /* 0 is none */
    return services_n;
}

uint16_t hd_service_find(hd_str_t name)
{
    for (uint16_t i = 1; i <= services_n; i++) {
        if (hd_str_eq(hd_str_c(services[i]->name), name))
            return i;
    }
    return 0;
}

static const hd_service_t *service_of(const hd_req_t *req)
{
    uint16_t i = req->route->service;

    return i == 0 || i > services_n ? NULL : services[i];
}

static hd_rc_t start(hd_req_t *req)
{
    const hd_service_t *s = service_of(req);

    if (s == NULL)
        return hd_req_fail(req, 503, HD_E_INTERNAL, "no such service in this process");
    return s->on_start(req, req->route->service_conf);
}

static void give_body(hd_req_t *req, hd_chain_t *body)
{
    const hd_service_t *s = service_of(req);

    if (s->on_body != NULL)
        s->on_body(req, body);
    hd_chain_free(body);
}

static void on_drained(hd_req_t *req)
{
    const hd_service_t *s = service_of(req);

    if (s->on_drained != NULL)
        s->on_drained(req);
}

static void cancel(hd_req_t *req)
{
    const hd_service_t *s = service_of(req);

    if (req->response_ended && !req->client_gone)
        return; /* it has answered in full */
    if (s != NULL && s->on_cancel != NULL)
        s->on_cancel(req);
}

const hd_action_ops_t hd_service_action = {
    .name = "service",
    .start = start,
    .give_body = give_body,
    .on_drained = on_drained,
    .cancel = cancel,
};
