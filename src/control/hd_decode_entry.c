/* ServiceEntry and WorkloadEntry: services and workloads that Kubernetes doesn't know. */
#include "control/hd_decode_int.h"
#include "control/hd_model_k8s.h"

void hd_read_protocol(hd_decoder_t *d, const hd_yaml_t *node, void *into)
{
    static const hd_enum_t words[] = {{"HTTP", HD_PROTO_HTTP},
                                      {"HTTPS", HD_PROTO_HTTPS},
                                      {"GRPC", HD_PROTO_GRPC},
                                      {"GRPC-WEB", HD_PROTO_GRPC_WEB},
                                      {"HTTP2", HD_PROTO_HTTP2},
                                      {"MONGO", HD_PROTO_TCP},
                                      {"TCP", HD_PROTO_TCP},
                                      {"TLS", HD_PROTO_TLS},
                                      {"MYSQL", HD_PROTO_TCP},
                                      {"REDIS", HD_PROTO_TCP},
                                      {"UDP", HD_PROTO_UDP},
                                      {"HTTP_PROXY", HD_PROTO_HTTP_PROXY},
                                      {NULL, 0}};
    static const hd_field_t field = {.name = "", .type = HD_D_ENUM, .values = words};
    int value;

    if (node->type == HD_YAML_SCALAR && hd_find_enum(words, node->text, true, &value))
        memcpy(into, &value, sizeof(value));
    else
        hd_decode_typed(d, &field, node, into);
}

/* --- WorkloadEntry, also an endpoint of a ServiceEntry --- */

static const char *address_form(hd_str_t s)
{
    if (hd_str_has_prefix(s, HD_STR("unix://")))
        return s.len > 8 && (s.data[7] == '/' || s.data[7] == '@')
                   ? NULL
                   : "must be unix:///path or unix://@name";
    for (size_t i = 0; i < s.len; i++) {
        char c = hd_ascii_lower(s.data[i]);

        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
              strchr("-._:", c) != NULL))
            return "is no IP address, name or unix:// path";
    }
    return NULL;
}

static const char *locality_form(hd_str_t s)
{
    size_t slashes = 0;

    for (size_t i = 0; i < s.len; i++)
        slashes += s.data[i] == '/';
    return slashes <= 2 ? NULL : "is no region/zone/subzone";
}

static const hd_field_t workload_fields[] = {
    HD_FIELD(hd_workload_entry_t, address, "address", STR, .form = address_form),
    HD_FIELD(hd_workload_entry_t, ports, "ports", LABELS, .flags = HD_F_ANY_SCALAR,
             .form = hd_form_port),
    HD_FIELD(hd_workload_entry_t, labels, "labels", LABELS),
    HD_FIELD(hd_workload_entry_t, network, "network", STR),
    HD_FIELD(hd_workload_entry_t, locality, "locality", STR, .form = locality_form),
    HD_FIELD(hd_workload_entry_t, weight, "weight", INT),
    HD_FIELD(hd_workload_entry_t, service_account, "serviceAccount", STR),
    {0}};

static void check_workload(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    const hd_workload_entry_t *w = obj;

    if (w->address.len == 0 && w->network.len == 0) /* WE-1 */
        hd_decode_error(d, node, "address: is missing (it may be only with network)");
    if (hd_str_has_prefix(w->address, HD_STR("unix:")) && w->ports.n > 0)
        hd_decode_error(d, node, "ports: can't be set with a unix:// address");
}

static const hd_schema_t workload_schema = {sizeof(hd_workload_entry_t), workload_fields,
                                            NULL, check_workload};

static const hd_field_t entry_fields[] = {{.name = "spec",
                                           .type = HD_D_FLAT,
                                           .flags = HD_F_REQUIRED,
                                           .schema = &workload_schema},
                                          HD_FIELD_NONE("status", SKIP),
                                          {0}};

/* --- ServiceEntry --- */

typedef struct {
    hd_mesh_service_t svc; /* first */
    int location;
    bool has_selector;
} entry_t;

static void check_port(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    hd_service_port_t *p = obj;

    (void)d;
    (void)node;
    if (p->target == HD_UNSET)
        p->target = p->number;
}

static const hd_field_t port_fields[] = {
    HD_FIELD(hd_service_port_t, number, "number", INT, .flags = HD_F_REQUIRED, .min = 1,
             .max = 65535),
    HD_FIELD(hd_service_port_t, protocol, "protocol", READ, .read = hd_read_protocol),
    HD_FIELD(hd_service_port_t, name, "name", STR, .flags = HD_F_REQUIRED),
    HD_FIELD(hd_service_port_t, target, "targetPort", INT, .min = 1, .max = 65535),
    {0}};
static const hd_schema_t port_schema = {sizeof(hd_service_port_t), port_fields, NULL,
                                        check_port};

static const hd_enum_t locations[] = {{"MESH_EXTERNAL", 0}, {"MESH_INTERNAL", 1}, {0}};
static const hd_enum_t resolutions[] = {{"NONE", HD_RESOLVE_NONE},
                                        {"STATIC", HD_RESOLVE_STATIC},
                                        {"DNS", HD_RESOLVE_DNS},
                                        {"DNS_ROUND_ROBIN", HD_RESOLVE_DNS_ROUND_ROBIN},
                                        {"DYNAMIC_DNS", HD_RESOLVE_DYNAMIC_DNS},
                                        {0}};

/* As written, but in lower case (HOST-3). */
static const char *entry_host_form(hd_str_t s)
{
    if (hd_str_eq(s, HD_STR("*")))
        return "alone would be every host: write *.example.com";
    if (hd_str_find_char(hd_str_sub(s, 1, s.len), '*') >= 0 ||
        (hd_host_is_wildcard(s) && !hd_str_has_prefix(s, HD_STR("*."))))
        return "has a * that isn't its first part (*.example.com)";
    return s.len > 255 ? "is longer than 255 bytes" : address_form(hd_str_sub(s, 1, 255));
}

static const hd_field_t entry_spec_fields[] = {
    HD_FIELD(entry_t, svc.hosts, "hosts", STRS, .flags = HD_F_REQUIRED | HD_F_LOWER,
             .form = entry_host_form),
    HD_FIELD(entry_t, svc.addresses, "addresses", STRS, .form = hd_form_cidr),
    HD_FIELD(entry_t, svc.ports, "ports", LIST, .schema = &port_schema),
    HD_FIELD(entry_t, location, "location", ENUM, .values = locations),
    HD_FIELD(entry_t, svc.resolution, "resolution", ENUM, .values = resolutions,
             .flags = HD_F_DEFAULT, .dflt = HD_RESOLVE_NONE),
    HD_FIELD(entry_t, svc.endpoints, "endpoints", LIST, .schema = &workload_schema),
    HD_FIELD(entry_t, svc.selector, "workloadSelector", FLAT,
             .schema = &hd_labels_selector_schema),
    HD_FIELD(entry_t, svc.export_to, "exportTo", READ, .read = hd_read_export_to),
    HD_FIELD(entry_t, svc.subject_alt_names, "subjectAltNames", STRS),
    {0}};

static void check_ports(hd_decoder_t *d, const hd_yaml_t *node,
                        const hd_mesh_service_t *svc)
{
    for (size_t i = 0; i < svc->ports.n; i++) {
        const hd_service_port_t *p = &svc->ports.items[i];

        for (size_t j = 0; j < i; j++) {
            if (svc->ports.items[j].number == p->number)
                hd_decode_error(d, hd_yaml_get(node, "ports"),
                                "ports: number %lld is there twice",
                                (long long)p->number);
            if (hd_str_eq(svc->ports.items[j].name, p->name))
                hd_decode_error(d, hd_yaml_get(node, "ports"),
                                "ports: name %.*s is there twice", HD_STR_ARG(p->name));
        }
        if (svc->hosts.n > 1 && svc->addresses.n == 0 && !hd_proto_is_http(p->protocol) &&
            !hd_proto_is_tls(p->protocol)) /* SE-19 */
            hd_decode_error(d, hd_yaml_get(node, "ports"),
                            "ports: several hosts can't be told apart on port %lld: "
                            "only on HTTP and TLS ports",
                            (long long)p->number);
    }
}

/* SE-10 to SE-14, SE-18 */
static void check_endpoints(hd_decoder_t *d, const hd_yaml_t *node,
                            const hd_mesh_service_t *svc)
{
    const hd_yaml_t *at = hd_yaml_get(node, "endpoints");
    bool dns = svc->resolution == HD_RESOLVE_DNS ||
               svc->resolution == HD_RESOLVE_DNS_ROUND_ROBIN;

    if (svc->endpoints.n > 0 &&
        (svc->resolution == HD_RESOLVE_NONE || svc->resolution == HD_RESOLVE_DYNAMIC_DNS))
        hd_decode_error(d, at, "endpoints: not with this resolution: use STATIC or DNS");
    if (svc->endpoints.n > 1 && svc->resolution == HD_RESOLVE_DNS_ROUND_ROBIN)
        hd_decode_error(d, at, "endpoints: DNS_ROUND_ROBIN has at most one");
    for (size_t i = 0; i < svc->endpoints.n; i++) {
        hd_str_t a = svc->endpoints.items[i].address;
        bool is_unix = hd_str_has_prefix(a, HD_STR("unix:"));

        if (svc->resolution == HD_RESOLVE_STATIC && a.len > 0 && !is_unix &&
            hd_form_ip(a) != NULL)
            hd_decode_error(d, at,
                            "endpoints[%zu].address: \"%.*s\" is no IP address, and "
                            "resolution is STATIC",
                            i, HD_STR_ARG(a));
        if (is_unix && (dns || svc->ports.n != 1))
            hd_decode_error(
                d, at, "endpoints[%zu].address: unix:// needs STATIC and one port", i);
    }
    for (size_t i = 0; i < svc->hosts.n && dns && svc->endpoints.n == 0; i++) {
        if (hd_host_is_wildcard(svc->hosts.items[i]))
            hd_decode_error(d, hd_yaml_get(node, "hosts"),
                            "hosts: %.*s can't be resolved: DNS without endpoints needs "
                            "whole names",
                            HD_STR_ARG(svc->hosts.items[i]));
    }
}

static void check_spec(hd_decoder_t *d, const hd_yaml_t *node, void *obj)
{
    entry_t *e = obj;
    static const char *const either[] = {"endpoints", "workloadSelector", NULL};

    e->svc.external = e->location == 0;
    hd_ignore(hd_decode_one_of(d, node, either, false)); /* reported (SE-6) */
    check_ports(d, node, &e->svc);
    check_endpoints(d, node, &e->svc);
    for (size_t i = 0; i < e->svc.addresses.n; i++) {
        if (hd_str_find_char(e->svc.addresses.items[i], '/') >= 0 &&
            e->svc.resolution != HD_RESOLVE_NONE &&
            e->svc.resolution != HD_RESOLVE_STATIC) /* SE-2 */
            hd_decode_error(d, hd_yaml_get(node, "addresses"),
                            "addresses: a CIDR needs resolution NONE or STATIC");
    }
    for (size_t i = 0; i < e->svc.hosts.n && e->svc.resolution == HD_RESOLVE_DYNAMIC_DNS;
         i++) {
        if (!hd_host_is_wildcard(e->svc.hosts.items[i]))
            hd_decode_error(d, hd_yaml_get(node, "hosts"),
                            "hosts: DYNAMIC_DNS needs wildcards (*.example.com)");
    }
}

static const hd_schema_t spec_schema = {sizeof(entry_t), entry_spec_fields, NULL,
                                        check_spec};
static const hd_field_t service_entry_fields[] = {
    {.name = "spec", .type = HD_D_FLAT, .flags = HD_F_REQUIRED, .schema = &spec_schema},
    HD_FIELD_NONE("status", SKIP),
    {0}};

const hd_kind_desc_t hd_decode_entry[] = {
    {.kind = HD_KIND_SERVICE_ENTRY,
     .group = "networking.istio.io",
     .versions = {"v1", "v1beta1", "v1alpha3"},
     .schema = {sizeof(entry_t), service_entry_fields, NULL, NULL}},
    {.kind = HD_KIND_WORKLOAD_ENTRY,
     .group = "networking.istio.io",
     .versions = {"v1", "v1beta1", "v1alpha3"},
     .schema = {sizeof(hd_workload_entry_t), entry_fields, NULL, NULL}},
    {.group = NULL}};
