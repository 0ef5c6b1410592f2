#include "control/hd_translate_int.h"

char *hd_tr_cluster_name(hd_tr_t *t, int64_t port, hd_str_t subset, hd_str_t host)
{
    return hd_tr_printf(t, "outbound|%lld|%.*s|%.*s", (long long)port, HD_STR_ARG(subset),
                        HD_STR_ARG(host));
}

char *hd_tr_inbound_name(hd_tr_t *t, int64_t port)
{
    return hd_tr_printf(t, "inbound|%lld||", (long long)port);
}

/* In the proxy's own pod. */
static int64_t target_port(hd_tr_t *t, const hd_service_port_t *port)
{
    const hd_object_t *pod;

    if (port->target != HD_UNSET)
        return port->target;
    if (port->target_name.len == 0)
        return port->number;
    pod = hd_model_pod_by_ip(t->model, t->proxy->ips[0]);
    if (pod == NULL)
        return HD_UNSET;
    for (hd_each(p, pod->pod->ports)) {
        if (hd_str_eq(p->name, port->target_name))
            return p->number;
    }
    return HD_UNSET;
}

int64_t hd_tr_gateway_target(hd_tr_t *t, int64_t port, bool enters)
{
    size_t n;
    const hd_object_t *const *list =
        hd_model_list_ns(t->model, HD_KIND_SERVICE, t->proxy->ns, &n);

    if (enters) {
        hd_part_depend(t->part, HD_DEP_IN_NS, hd_str_c(hd_kind_plural(HD_KIND_SERVICE)),
                       t->proxy->ns);
        hd_ignore(hd_tr_pod_by_ip(t, t->proxy->ips[0]) == NULL);
    }
    for (size_t i = 0; i < n; i++) {
        const hd_mesh_service_t *svc = list[i]->service;

        if (svc->selector.n == 0 || !hd_labels_match(&svc->selector, &t->_labels))
            continue;
        for (hd_each(p, svc->ports)) {
            int64_t target = p->number == port ? target_port(t, p) : HD_UNSET;

            if (target != HD_UNSET)
                return target;
        }
    }
    return port;
}

size_t hd_tr_own_ports(hd_tr_t *t, hd_tr_own_port_t *ports, size_t max)
{
    size_t n, found = 0;
    const hd_object_t *const *list;

    hd_ignore(hd_tr_pod_by_ip(t, t->proxy->ips[0]) == NULL); /* names of its ports */
    list = hd_tr_list_ns(t, HD_KIND_SERVICE, t->proxy->ns, &n);

    for (size_t i = 0; i < n; i++) {
        const hd_mesh_service_t *svc = list[i]->service;

        if (svc->selector.n == 0 || !hd_labels_match(&svc->selector, hd_tr_labels(t)))
            continue;
        for (hd_each(port, svc->ports)) {
            int64_t target = target_port(t, port);
            size_t at = 0;

            while (at < found && ports[at].target != target)
                at++;
            if (at < found || found == max || target == HD_UNSET ||
                port->protocol == HD_PROTO_UDP)
                continue;
            ports[found++] =
                (hd_tr_own_port_t){.service = list[i], .port = port, .target = target};
        }
    }
    return found;
}
