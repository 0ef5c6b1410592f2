/* Kubernetes' own kinds. Of their many fields a mesh reads few; the rest is known by name
 * only (Kubernetes 1.31), so that a misspelt one is still found. */
#include "control/hd_decode_int.h"
#include "control/hd_model_k8s.h"

/* --- Namespace, Node --- */

static void check_namespace(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    hd_namespace_t *ns = obj;
    const hd_labels_t *labels = &d->obj->labels;

    (void)node;
    ns->injects =
        hd_str_eq(hd_labels_get(labels, HD_STR("istio-injection")), HD_STR("enabled")) ||
        hd_labels_get(labels, HD_STR("istio.io/rev")).len > 0;
}

static const hd_field_t namespace_fields[] = {
    HD_FIELD_NONE("spec", SKIP), HD_FIELD_NONE("status", SKIP), {0}};

/* DR-LOC-2 */
static void check_node(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    hd_k8s_node_t *n = obj;
    const hd_labels_t *labels = &d->obj->labels;

    (void)node;
    n->region = hd_labels_get(labels, HD_STR("topology.kubernetes.io/region"));
    n->zone = hd_labels_get(labels, HD_STR("topology.kubernetes.io/zone"));
    n->subzone = hd_labels_get(labels, HD_STR("topology.istio.io/subzone"));
}

static const hd_field_t node_fields[] = {
    HD_FIELD_NONE("spec", SKIP), HD_FIELD_NONE("status", SKIP), {0}};

/* --- Service --- */

typedef struct {
    hd_mesh_service_t svc; /* first: what the model sees */
    hd_str_t cluster_ip, type, internal_policy;
    hd_strs_t cluster_ips;
} service_t;

typedef struct {
    hd_service_port_t port; /* first */
    hd_str_t protocol, app_protocol;
} service_port_t;

static const hd_enum_t k8s_protocols[] = {{"TCP", 0}, {"UDP", 1}, {"SCTP", 2}, {NULL, 0}};

/* PROTO-1 to PROTO-4 */
static hd_proto_t find_protocol(hd_str_t name, int64_t number)
{
    static const hd_enum_t words[] = {{"grpc-web", HD_PROTO_GRPC_WEB},
                                      {"http", HD_PROTO_HTTP},
                                      {"http2", HD_PROTO_HTTP2},
                                      {"https", HD_PROTO_HTTPS},
                                      {"tcp", HD_PROTO_TCP},
                                      {"tls", HD_PROTO_TLS},
                                      {"grpc", HD_PROTO_GRPC},
                                      {"mongo", HD_PROTO_TCP},
                                      {"mysql", HD_PROTO_TCP},
                                      {"redis", HD_PROTO_TCP},
                                      {"udp", HD_PROTO_UDP},
                                      {"kubernetes.io/h2c", HD_PROTO_HTTP2},
                                      {"kubernetes.io/ws", HD_PROTO_HTTP},
                                      {"kubernetes.io/wss", HD_PROTO_HTTPS},
                                      {NULL, 0}};
    ssize_t dash = hd_str_find_char(name, '-');
    int value;

    if (hd_find_enum(words, name, true, &value))
        return (hd_proto_t)value;
    if (hd_str_has_prefix_nocase(name, HD_STR("grpc-web")))
        return HD_PROTO_GRPC_WEB;
    if (dash > 0 && hd_find_enum(words, hd_str_sub(name, 0, (size_t)dash), true, &value))
        return (hd_proto_t)value;
    if (number == 25 || number == 53 || number == 3306 || number == 27017)
        return HD_PROTO_TCP; /* the server speaks first */
    return HD_PROTO_AUTO;
}

static const char *k8s_protocol_form(hd_str_t s)
{
    int value;

    return hd_find_enum(k8s_protocols, s, false, &value) ? NULL
                                                         : "must be TCP, UDP or SCTP";
}

/* A number or a container port's name. */
static void read_target(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    hd_service_port_t *port = hd_container_of(into, hd_service_port_t, target);
    static const hd_field_t number = {
        .name = "", .type = HD_D_INT, .min = 1, .max = 65535};
    static const hd_field_t name = {.name = "", .type = HD_D_STR};

    port->target = HD_UNSET;
    if (hd_yaml_is_number(node))
        hd_decode_typed(d, &number, node, &port->target);
    else
        hd_decode_typed(d, &name, node, &port->target_name);
}

static void check_service_port(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    service_port_t *p = obj;

    (void)d;
    if (!hd_decode_has(node, "targetPort"))
        p->port.target = p->port.number;
    if (hd_str_eq(p->protocol, HD_STR("UDP")))
        p->port.protocol = HD_PROTO_UDP;
    else if (p->app_protocol.len > 0)
        p->port.protocol = find_protocol(p->app_protocol, p->port.number);
    else
        p->port.protocol = find_protocol(p->port.name, p->port.number);
}

static const hd_field_t service_port_fields[] = {
    HD_FIELD(service_port_t, port.name, "name", STR),
    HD_FIELD(service_port_t, port.number, "port", INT, .flags = HD_F_REQUIRED, .min = 1,
             .max = 65535),
    HD_FIELD(service_port_t, port.target, "targetPort", READ, .read = read_target),
    HD_FIELD(service_port_t, protocol, "protocol", STR, .form = k8s_protocol_form),
    HD_FIELD(service_port_t, app_protocol, "appProtocol", STR),
    HD_FIELD_NONE("nodePort", SKIP),
    {0}};
static const hd_schema_t service_port_schema = {
    sizeof(service_port_t), service_port_fields, NULL, check_service_port};

/* The engine fills service_port_t items; the model's list is of their first members. */
static void read_service_ports(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const hd_field_t list = {
        .name = "", .type = HD_D_LIST, .schema = &service_port_schema};
    HD_LIST(service_port_t) items = {NULL, 0};
    hd_service_port_t *ports;

    hd_decode_typed(d, &list, node, &items);
    if (items.n == 0)
        return;
    ports = hd_pool_new_n(d->pool, hd_service_port_t, items.n);
    for (size_t i = 0; i < items.n; i++) {
        ports[i] = items.items[i].port;
        if (items.n > 1 && ports[i].name.len == 0)
            hd_decode_error(d, node,
                            "[%zu].name: is missing: with several ports each "
                            "needs one",
                            i);
        for (size_t j = 0; j < i; j++) {
            if (ports[i].name.len > 0 && hd_str_eq(ports[i].name, ports[j].name))
                hd_decode_error(d, node, "[%zu].name: \"%.*s\" is there twice", i,
                                HD_STR_ARG(ports[i].name));
        }
    }
    ((hd_mesh_service_t *)hd_container_of(into, hd_mesh_service_t, ports))->ports.items =
        ports;
    ((hd_mesh_service_t *)hd_container_of(into, hd_mesh_service_t, ports))->ports.n =
        items.n;
}

static const hd_field_t service_spec_fields[] = {
    HD_FIELD(service_t, svc.ports, "ports", READ, .read = read_service_ports),
    HD_FIELD(service_t, svc.selector, "selector", LABELS),
    HD_FIELD(service_t, cluster_ip, "clusterIP", STR),
    HD_FIELD(service_t, cluster_ips, "clusterIPs", STRS),
    HD_FIELD(service_t, type, "type", STR),
    HD_FIELD(service_t, svc.external_name, "externalName", STR, .flags = HD_F_LOWER),
    HD_FIELD(service_t, svc.publish_not_ready, "publishNotReadyAddresses", BOOL),
    HD_FIELD(service_t, internal_policy, "internalTrafficPolicy", STR),
    HD_FIELD_NONE("trafficDistribution", NO_EFFECT), /* DR-LB-12 */
    {0}};
static const char *const service_spec_skip[] = {"ipFamilies",
                                                "ipFamilyPolicy",
                                                "sessionAffinity",
                                                "externalIPs",
                                                "loadBalancerIP",
                                                "allocateLoadBalancerNodePorts",
                                                "sessionAffinityConfig",
                                                "externalTrafficPolicy",
                                                "healthCheckNodePort",
                                                "loadBalancerClass",
                                                "loadBalancerSourceRanges",
                                                NULL};
static const hd_schema_t service_spec_schema = {sizeof(service_t), service_spec_fields,
                                                service_spec_skip, NULL};

/* Annotation networking.istio.io/exportTo (EXP-1): a comma-separated list. */
static hd_strs_t read_export_annotation(hd_decoder_t *d)
{
    hd_str_t rest =
        hd_labels_get(&d->obj->annotations, HD_STR("networking.istio.io/exportTo"));
    hd_str_t part, *items;
    hd_strs_t list = {NULL, 0};

    if (rest.len == 0)
        return list;
    items = hd_pool_new_n(d->pool, hd_str_t, rest.len);
    while (hd_str_split(&rest, ',', &part)) {
        part = hd_str_trim(part);
        if (part.len > 0)
            items[list.n++] = part;
    }
    list.items = items;
    return list;
}

static void set_addresses(hd_decoder_t *d, const hd_yaml_t *node, service_t *s)
{
    hd_strs_t *to = &s->svc.addresses;
    hd_str_t *one;

    if (hd_str_eq(s->cluster_ip, HD_STR("None")) ||
        (s->cluster_ips.n > 0 && hd_str_eq(s->cluster_ips.items[0], HD_STR("None")))) {
        s->svc.headless = true;
        return;
    }
    *to = s->cluster_ips;
    if (to->n == 0 && s->cluster_ip.len > 0) {
        one = hd_pool_new(d->pool, hd_str_t);
        *one = s->cluster_ip;
        *to = (hd_strs_t){one, 1};
    }
    for (size_t i = 0; i < to->n; i++) {
        if (hd_form_ip(to->items[i]) != NULL)
            hd_decode_error(d, node, "spec.clusterIPs: \"%.*s\" is no IP address",
                            HD_STR_ARG(to->items[i]));
    }
}

static void check_service(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    service_t *s = obj;
    hd_str_t *host = hd_pool_new(d->pool, hd_str_t);

    if (hd_str_find_char(d->obj->name, '.') >= 0)
        hd_decode_error(d, node, "metadata.name: a Service's name has no dots");
    *host = hd_str_printf(d->pool, "%.*s.%.*s.svc.%.*s", HD_STR_ARG(d->obj->name),
                          HD_STR_ARG(d->obj->ns), HD_STR_ARG(d->conf->cluster_domain));
    s->svc.hosts = (hd_strs_t){host, 1};
    s->svc.export_to = read_export_annotation(d);
    s->svc.internal_local = hd_str_eq(s->internal_policy, HD_STR("Local"));
    set_addresses(d, node, s);
    if (hd_str_eq(s->type, HD_STR("ExternalName"))) {
        if (s->svc.external_name.len == 0)
            hd_decode_error(d, node, "spec.externalName: is missing");
        s->svc.resolution = HD_RESOLVE_ALIAS;
    } else {
        if (s->svc.ports.n == 0 && !s->svc.headless)
            hd_decode_error(d, node, "spec.ports: is missing");
        s->svc.resolution = s->svc.headless ? HD_RESOLVE_NONE : HD_RESOLVE_STATIC;
    }
}

static const hd_field_t service_fields[] = {{.name = "spec",
                                             .type = HD_D_FLAT,
                                             .flags = HD_F_REQUIRED,
                                             .schema = &service_spec_schema},
                                            HD_FIELD_NONE("status", SKIP),
                                            {0}};

/* --- EndpointSlice --- */

static const hd_field_t slice_port_fields[] = {
    HD_FIELD(hd_slice_port_t, name, "name", STR),
    HD_FIELD(hd_slice_port_t, number, "port", INT, .min = 1, .max = 65535),
    HD_FIELD(hd_slice_port_t, app_protocol, "appProtocol", STR),
    HD_FIELD_NONE("protocol", SKIP),
    {0}};
static const hd_schema_t slice_port_schema = {sizeof(hd_slice_port_t), slice_port_fields,
                                              NULL, NULL};

typedef struct {
    hd_slice_endpoint_t ep; /* first */
    int64_t ready, serving, terminating;
} slice_endpoint_t;

static const hd_field_t condition_fields[] = {
    HD_FIELD(slice_endpoint_t, ready, "ready", TRI),
    HD_FIELD(slice_endpoint_t, serving, "serving", TRI),
    HD_FIELD(slice_endpoint_t, terminating, "terminating", TRI),
    {0}};
static const hd_schema_t conditions_schema = {sizeof(slice_endpoint_t), condition_fields,
                                              NULL, NULL};

static const hd_field_t target_fields[] = {
    HD_FIELD(slice_endpoint_t, ep.target_kind, "kind", STR),
    HD_FIELD(slice_endpoint_t, ep.target_ns, "namespace", STR),
    HD_FIELD(slice_endpoint_t, ep.target_name, "name", STR),
    {0}};
static const char *const target_skip[] = {"uid", "resourceVersion", "apiVersion",
                                          "fieldPath", NULL};
static const hd_schema_t target_schema = {sizeof(slice_endpoint_t), target_fields,
                                          target_skip, NULL};

static void check_slice_endpoint(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    slice_endpoint_t *e = obj;

    (void)d;
    (void)node;
    e->ep.ready = e->ready != 0;
    e->ep.serving = e->serving == HD_UNSET ? e->ep.ready : e->serving != 0;
    e->ep.terminating = e->terminating == 1;
}

static const hd_field_t slice_endpoint_fields[] = {
    HD_FIELD(slice_endpoint_t, ep.addresses, "addresses", STRS, .flags = HD_F_REQUIRED),
    {.name = "conditions", .type = HD_D_FLAT, .schema = &conditions_schema},
    HD_FIELD(slice_endpoint_t, ep.hostname, "hostname", STR),
    HD_FIELD(slice_endpoint_t, ep.node_name, "nodeName", STR),
    HD_FIELD(slice_endpoint_t, ep.zone, "zone", STR),
    {.name = "targetRef", .type = HD_D_FLAT, .schema = &target_schema},
    HD_FIELD_NONE("hints", SKIP),
    HD_FIELD_NONE("deprecatedTopology", SKIP),
    {0}};
static const hd_schema_t slice_endpoint_schema = {
    sizeof(slice_endpoint_t), slice_endpoint_fields, NULL, check_slice_endpoint};

static void read_slice_endpoints(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const hd_field_t list = {
        .name = "", .type = HD_D_LIST, .schema = &slice_endpoint_schema};
    HD_LIST(slice_endpoint_t) items = {NULL, 0};
    hd_endpoint_slice_t *slice = hd_container_of(into, hd_endpoint_slice_t, endpoints);
    hd_slice_endpoint_t *eps;

    hd_decode_typed(d, &list, node, &items);
    if (items.n == 0)
        return;
    eps = hd_pool_new_n(d->pool, hd_slice_endpoint_t, items.n);
    for (size_t i = 0; i < items.n; i++)
        eps[i] = items.items[i].ep;
    slice->endpoints.items = eps;
    slice->endpoints.n = items.n;
}

static void check_slice(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    hd_endpoint_slice_t *slice = obj;

    slice->service = hd_labels_get(&d->obj->labels, HD_STR("kubernetes.io/service-name"));
    if (slice->service.len == 0)
        hd_decode_warn(d, node, "",
                       "no label kubernetes.io/service-name: it belongs to no Service");
    if (hd_str_eq(slice->address_type, HD_STR("FQDN")))
        return;
    for (size_t i = 0; i < slice->endpoints.n; i++) {
        const hd_strs_t *list = &slice->endpoints.items[i].addresses;

        for (size_t j = 0; j < list->n; j++) {
            if (hd_form_ip(list->items[j]) != NULL)
                hd_decode_error(d, node,
                                "endpoints[%zu].addresses: \"%.*s\" is no IP address", i,
                                HD_STR_ARG(list->items[j]));
        }
    }
}

static const char *address_type_form(hd_str_t s)
{
    return hd_str_eq(s, HD_STR("IPv4")) || hd_str_eq(s, HD_STR("IPv6")) ||
                   hd_str_eq(s, HD_STR("FQDN"))
               ? NULL
               : "must be IPv4, IPv6 or FQDN";
}

static const hd_field_t slice_fields[] = {
    HD_FIELD(hd_endpoint_slice_t, address_type, "addressType", STR,
             .flags = HD_F_REQUIRED, .form = address_type_form),
    HD_FIELD(hd_endpoint_slice_t, ports, "ports", LIST, .schema = &slice_port_schema),
    HD_FIELD(hd_endpoint_slice_t, endpoints, "endpoints", READ,
             .read = read_slice_endpoints),
    {0}};

/* --- Pod --- */

typedef struct {
    hd_pod_t pod; /* first */
    hd_str_t old_account;
} pod_t;

static const hd_field_t container_port_fields[] = {
    HD_FIELD(hd_container_port_t, name, "name", STR),
    HD_FIELD(hd_container_port_t, number, "containerPort", INT, .flags = HD_F_REQUIRED,
             .min = 1, .max = 65535),
    HD_FIELD_NONE("protocol", SKIP),
    HD_FIELD_NONE("hostPort", SKIP),
    HD_FIELD_NONE("hostIP", SKIP),
    {0}};
static const hd_schema_t container_port_schema = {sizeof(hd_container_port_t),
                                                  container_port_fields, NULL, NULL};

typedef struct {
    HD_LIST(hd_container_port_t) ports;
} container_t;

static const hd_field_t container_fields[] = {
    HD_FIELD(container_t, ports, "ports", LIST, .schema = &container_port_schema), {0}};
static const char *const container_skip[] = {"name",
                                             "image",
                                             "command",
                                             "args",
                                             "workingDir",
                                             "envFrom",
                                             "env",
                                             "resources",
                                             "resizePolicy",
                                             "restartPolicy",
                                             "volumeMounts",
                                             "volumeDevices",
                                             "livenessProbe",
                                             "readinessProbe",
                                             "startupProbe",
                                             "lifecycle",
                                             "terminationMessagePath",
                                             "terminationMessagePolicy",
                                             "imagePullPolicy",
                                             "securityContext",
                                             "stdin",
                                             "stdinOnce",
                                             "tty",
                                             NULL};
static const hd_schema_t container_schema = {sizeof(container_t), container_fields,
                                             container_skip, NULL};

/* All containers' ports as one list. */
static void read_containers(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const hd_field_t list = {
        .name = "", .type = HD_D_LIST, .schema = &container_schema};
    HD_LIST(container_t) items = {NULL, 0};
    hd_pod_t *pod = hd_container_of(into, hd_pod_t, ports);
    hd_container_port_t *ports;
    size_t n = 0;

    hd_decode_typed(d, &list, node, &items);
    for (size_t i = 0; i < items.n; i++)
        n += items.items[i].ports.n;
    if (n == 0)
        return;
    ports = hd_pool_new_n(d->pool, hd_container_port_t, n);
    pod->ports.items = ports;
    for (size_t i = 0; i < items.n; i++) {
        for (size_t j = 0; j < items.items[i].ports.n; j++)
            ports[pod->ports.n++] = items.items[i].ports.items[j];
    }
}

static const hd_field_t pod_spec_fields[] = {
    HD_FIELD(pod_t, pod.service_account, "serviceAccountName", STR),
    HD_FIELD(pod_t, old_account, "serviceAccount", STR),
    HD_FIELD(pod_t, pod.node_name, "nodeName", STR),
    HD_FIELD(pod_t, pod.host_network, "hostNetwork", BOOL),
    HD_FIELD(pod_t, pod.ports, "containers", READ, .read = read_containers),
    {0}};
static const char *const pod_spec_skip[] = {"volumes",
                                            "initContainers",
                                            "ephemeralContainers",
                                            "restartPolicy",
                                            "terminationGracePeriodSeconds",
                                            "activeDeadlineSeconds",
                                            "dnsPolicy",
                                            "nodeSelector",
                                            "automountServiceAccountToken",
                                            "hostPID",
                                            "hostIPC",
                                            "hostUsers",
                                            "shareProcessNamespace",
                                            "securityContext",
                                            "imagePullSecrets",
                                            "hostname",
                                            "subdomain",
                                            "affinity",
                                            "schedulerName",
                                            "tolerations",
                                            "hostAliases",
                                            "priorityClassName",
                                            "priority",
                                            "dnsConfig",
                                            "readinessGates",
                                            "runtimeClassName",
                                            "enableServiceLinks",
                                            "preemptionPolicy",
                                            "overhead",
                                            "topologySpreadConstraints",
                                            "setHostnameAsFQDN",
                                            "os",
                                            "schedulingGates",
                                            "resourceClaims",
                                            "resources",
                                            NULL};
static const hd_schema_t pod_spec_schema = {sizeof(pod_t), pod_spec_fields, pod_spec_skip,
                                            NULL};

/* [{ip: …}] */
static void read_pod_ips(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const hd_field_t ip_fields[] = {
        {.name = "ip", .type = HD_D_STR, .flags = HD_F_REQUIRED, .form = hd_form_ip},
        {0}};
    static const hd_schema_t ip_schema = {sizeof(hd_str_t), ip_fields, NULL, NULL};
    static const hd_field_t list = {.name = "", .type = HD_D_LIST, .schema = &ip_schema};

    hd_decode_typed(d, &list, node, into);
}

static void read_pod_conditions(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    bool *ready = into;

    if (node->type != HD_YAML_LIST) {
        hd_decode_error(d, node, "must be a list, not %s", hd_yaml_what(node));
        return;
    }
    for (uint32_t i = 0; i < node->n; i++) {
        const hd_yaml_t *type = hd_yaml_get(node->entries[i].value, "type");
        const hd_yaml_t *status = hd_yaml_get(node->entries[i].value, "status");

        if (type != NULL && status != NULL && hd_str_eq(type->text, HD_STR("Ready")))
            *ready = hd_str_eq_nocase(status->text, HD_STR("true"));
    }
}

static const hd_field_t pod_status_fields[] = {
    HD_FIELD(pod_t, pod.phase, "phase", STR),
    HD_FIELD(pod_t, pod.ip, "podIP", STR, .form = hd_form_ip),
    HD_FIELD(pod_t, pod.ips, "podIPs", READ, .read = read_pod_ips),
    HD_FIELD(pod_t, pod.host_ip, "hostIP", STR),
    HD_FIELD(pod_t, pod.ready, "conditions", READ, .read = read_pod_conditions),
    {0}};
static const char *const pod_status_skip[] = {"message",
                                              "reason",
                                              "startTime",
                                              "containerStatuses",
                                              "initContainerStatuses",
                                              "ephemeralContainerStatuses",
                                              "qosClass",
                                              "hostIPs",
                                              "nominatedNodeName",
                                              "resize",
                                              "resourceClaimStatuses",
                                              "observedGeneration",
                                              NULL};
static const hd_schema_t pod_status_schema = {sizeof(pod_t), pod_status_fields,
                                              pod_status_skip, NULL};

static void check_pod(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    pod_t *p = obj;
    hd_str_t *one;

    (void)node;
    if (p->pod.service_account.len == 0)
        p->pod.service_account =
            p->old_account.len > 0 ? p->old_account : HD_STR("default");
    if (p->pod.ips.n == 0 && p->pod.ip.len > 0) {
        one = hd_pool_new(d->pool, hd_str_t);
        *one = p->pod.ip;
        p->pod.ips = (hd_strs_t){one, 1};
    } else if (p->pod.ip.len == 0 && p->pod.ips.n > 0) {
        p->pod.ip = p->pod.ips.items[0];
    }
}

static const hd_field_t pod_fields[] = {
    {.name = "spec", .type = HD_D_FLAT, .schema = &pod_spec_schema},
    {.name = "status", .type = HD_D_FLAT, .schema = &pod_status_schema},
    {0}};

const hd_kind_desc_t hd_decode_k8s[] = {
    {.kind = HD_KIND_NAMESPACE,
     .group = "",
     .versions = {"v1"},
     .is_global = true,
     .schema = {sizeof(hd_namespace_t), namespace_fields, NULL, check_namespace}},
    {.kind = HD_KIND_NODE,
     .group = "",
     .versions = {"v1"},
     .is_global = true,
     .schema = {sizeof(hd_k8s_node_t), node_fields, NULL, check_node}},
    {.kind = HD_KIND_SERVICE,
     .group = "",
     .versions = {"v1"},
     .schema = {sizeof(service_t), service_fields, NULL, check_service}},
    {.kind = HD_KIND_ENDPOINT_SLICE,
     .group = "discovery.k8s.io",
     .versions = {"v1"},
     .schema = {sizeof(hd_endpoint_slice_t), slice_fields, NULL, check_slice}},
    {.kind = HD_KIND_POD,
     .group = "",
     .versions = {"v1"},
     .schema = {sizeof(pod_t), pod_fields, NULL, check_pod}},
    {.group = NULL}};
