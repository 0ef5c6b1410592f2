/* What is wrong in YAML is reported with its place, its path and what would be right;
 * each row is a text and its findings. */
#include "control/hd_decode.h"
#include "tap.h"

#define VS(body)                                                                         \
    "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"                         \
    "metadata: {name: a, namespace: shop}\nspec:\n" body
#define VS_ROUTE(body)                                                                   \
    VS("  hosts: [a]\n  http:\n  - route: [{destination: {host: a}}]\n" body)
#define DR(body)                                                                         \
    "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n"                        \
    "metadata: {name: a, namespace: shop}\nspec:\n  host: a\n" body
#define GW(body)                                                                         \
    "apiVersion: networking.istio.io/v1\nkind: Gateway\n"                                \
    "metadata: {name: a, namespace: shop}\nspec:\n  servers:\n" body
#define SE(body)                                                                         \
    "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n"                           \
    "metadata: {name: a, namespace: shop}\nspec:\n" body
#define AP(body)                                                                         \
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"                      \
    "metadata: {name: a, namespace: shop}\nspec:\n" body
#define PA(body)                                                                         \
    "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"                       \
    "metadata: {name: a, namespace: shop}\nspec:\n" body
#define SVC(body)                                                                        \
    "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec:\n" body

typedef struct {
    const char *text;
    const char *findings; /* one a line; "" none */
} row_t;

static const row_t rows[] = {
    /* --- form --- */
    {"a: [1\n", "f.yaml:2: error: "},
    {"a: b: c\n", "f.yaml:1: error: "},
    {"a: 1\na: 2\n", "f.yaml:2: error: duplicate key \"a\""},
    {"a: *x\n", "f.yaml:1: error: alias *x: no such anchor before it"},
    {"a: &x {b: *x}\n", "f.yaml:1: error: alias *x: no such anchor before it"},
    {"a: {<<: {b: 1}}\n", "f.yaml:1: error: merge keys (<<) are not supported: write the "
                          "fields out"},
    {"a: !!binary aGk=\n",
     "f.yaml:1: error: tag \"tag:yaml.org,2002:binary\" is not supported"},
    {"{[a, b]: c}\n", "f.yaml:1: error: a key must be a word, not a list"},
    {"a: \"x\\0y\"\n", "f.yaml:1: error: a zero byte in a text"},
    {"", ""},
    {"---\n---\n# nothing\n", ""},
    {"hello\n",
     "f.yaml:1: error: an object must be a map with apiVersion, kind, metadata"},
    {"kind: Service\n", "f.yaml:1: error: apiVersion: is missing or no text"},
    {"apiVersion: v1\n", "f.yaml:1: error: kind: is missing or no text"},
    /* --- kinds --- */
    {"apiVersion: networking.istio.io/v1\nkind: VirtalService\nmetadata: {name: a}\n",
     "f.yaml:1: error: unknown kind VirtalService of networking.istio.io: did you mean "
     "VirtualService? Allowed are ServiceEntry, WorkloadEntry, VirtualService, "
     "DestinationRule, Gateway, Sidecar, EnvoyFilter, ProxyConfig, WorkloadGroup"},
    {"apiVersion: networking.istio.io/v7\nkind: Gateway\nmetadata: {name: a}\n"
     "spec: {servers: [{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*']}]}\n",
     "f.yaml:1: error: unknown version \"v7\": did you mean v1? Allowed are v1, v1beta1, "
     "v1alpha3"},
    {"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n",
     "f.yaml:1: note: apps/Deployment is nothing to a mesh: not read"},
    {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
     "f.yaml:1: note: ConfigMap is nothing to a mesh: not read"},
    {"apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: a}\n",
     "f.yaml:1: warning: EnvoyFilter is not supported, it never will be (EF-1): it has "
     "no "
     "effect"},
    {"apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\n",
     "f.yaml:1: warning: HTTPRoute of the Gateway API is not supported yet: it has no "
     "effect"},
    {"apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: a}\n"
     "spec: {accessLogging: [{disabled: true}]}\n",
     "f.yaml:1: warning: Telemetry is not supported yet: it has no effect"},
    /* --- metadata --- */
    {"apiVersion: v1\nkind: Service\nspec: {ports: [{port: 80}]}\n",
     "f.yaml:1: error: metadata: is missing"},
    {"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: Shop\n",
     "f.yaml:4: error: metadata.name: \"Shop\" is no name: a-z, 0-9, - and . only"},
    {"apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: {a: 1}\n",
     "f.yaml:5: error: metadata.labels.a: must be a text, not a number: quote it, \"1\""},
    {"apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, lables: {}}\n",
     "f.yaml:3: error: unknown field metadata.lables: did you mean labels? Allowed are "
     "name, namespace, labels, annotations, creationTimestamp, uid, resourceVersion, "
     "generation, generateName, managedFields, ownerReferences, finalizers, "
     "deletionTimestamp, deletionGracePeriodSeconds, selfLink"},
    {"apiVersion: v1\nkind: Namespace\nmetadata: {name: a, creationTimestamp: "
     "yesterday}\n",
     "f.yaml:3: error: metadata.creationTimestamp: must be a time like "
     "2026-01-31T12:00:00Z"},
    {"apiVersion: v1\nkind: Namespace\nmetadata: {name: a, creationTimestamp: null}\n",
     ""},
    /* --- fields --- */
    {VS("  hosts: [a]\n  htp: []\n"),
     "f.yaml:6: error: unknown field spec.htp: did you mean http? Allowed are hosts, "
     "gateways, http, tls, tcp, exportTo"},
    {VS("  hosts: a\n  http: [{route: [{destination: {host: a}}]}]\n"),
     "f.yaml:5: error: spec.hosts: must be a list, not a text"},
    {VS("  hosts: [a]\n  http:\n  - route:\n    - {destination: {host: a}, wieght: 1}\n"),
     "f.yaml:8: error: unknown field spec.http[0].route[0].wieght: did you mean weight? "
     "Allowed are destination, weight, headers"},
    {VS("  hosts: [a]\n  http:\n  - route:\n    - {destination: {}}\n"),
     "f.yaml:8: error: spec.http[0].route[0].destination.host: is missing"},
    {VS("  hosts: [a]\n  http:\n  - route: [{destination: {host: a, port: 80}}]\n"),
     "f.yaml:7: error: spec.http[0].route[0].destination.port: must be a map, not a "
     "number"},
    {VS("  hosts: [a]\n  http:\n  - route: [{destination: {host: a, port: {number: "
        "70000}}}]\n"),
     "f.yaml:7: error: spec.http[0].route[0].destination.port.number: 70000 is out of "
     "range: 1 to 65535"},
    {VS("  hosts: [a]\n  http:\n  - route: [{destination: {host: '*.a'}}]\n"),
     "f.yaml:7: error: spec.http[0].route[0].destination: host: a destination can't be a "
     "wildcard"},
    {VS("  hosts: ['a.*.b']\n  http: [{route: [{destination: {host: a}}]}]\n"),
     "f.yaml:5: error: spec.hosts[0]: \"a.*.b\" has a * that isn't its first part "
     "(*.example.com)"},
    {VS("  hosts: ['*']\n  http: [{route: [{destination: {host: a}}]}]\n"),
     "f.yaml:5: error: spec: hosts: * is for gateways only, not for mesh"},
    {VS("  hosts: [a, a]\n  http: [{route: [{destination: {host: a}}]}]\n"),
     "f.yaml:5: error: spec: hosts: a.shop.svc.cluster.local is there twice"},
    {VS("  hosts: [a]\n"), "f.yaml:5: error: spec: needs one of http, tls, tcp"},
    {VS_ROUTE("    timeout: 3\n"),
     "f.yaml:8: error: spec.http[0].timeout: \"3\" is no duration: write 1.5s, 200ms or "
     "1h30m"},
    {VS_ROUTE("    timeout: -3s\n"),
     "f.yaml:8: error: spec.http[0].timeout: \"-3s\" must not be negative"},
    {VS_ROUTE("    timeout: 1e9h\n"), "f.yaml:8: error: spec.http[0].timeout: \"1e9h\" "
                                      "is no duration: write 1.5s, 200ms or "
                                      "1h30m"},
    {VS_ROUTE("    timeout: 99999999h\n"),
     "f.yaml:8: error: spec.http[0].timeout: \"99999999h\" is too long"},
    {VS_ROUTE("    retries: {attempts: two}\n"),
     "f.yaml:8: error: spec.http[0].retries.attempts: must be a whole number, not a "
     "text"},
    {VS_ROUTE("    retries: {attempts: 1.5}\n"),
     "f.yaml:8: error: spec.http[0].retries.attempts: must be a whole number, not 1.5"},
    {VS_ROUTE("    retries: {retryOn: 'reset,5x'}\n"),
     "f.yaml:8: error: spec.http[0].retries.retryOn: unknown condition \"5x\""},
    {VS_ROUTE("    retries: {attempts: 0, perTryTimeout: 1s}\n"), /* VS-RETRY-9 */
     "f.yaml:8: error: spec.http[0].retries: attempts: 0 means no retry: then retryOn, "
     "perTryTimeout and retryRemoteLocalities can't be set"},
    {VS_ROUTE("    retries: {perTryTimeout: 10us}\n"), /* VS-RETRY-2 */
     "f.yaml:8: error: spec.http[0].retries.perTryTimeout: 10us is too short: at least 1 "
     "ms"},
    {VS_ROUTE("    match: [{uri: {exact: /a, prefix: /b}}]\n"),
     "f.yaml:8: error: spec.http[0].match[0].uri: must have exactly one of exact, "
     "prefix, "
     "regex"},
    {VS_ROUTE("    match: [{uri: /a}]\n"),
     "f.yaml:8: error: spec.http[0].match[0].uri: must be a map, not a text"},
    {VS_ROUTE("    match: [{uri: {prefx: /a}}]\n"),
     "f.yaml:8: error: spec.http[0].match[0].uri: unknown match prefx: did you mean "
     "prefix? Allowed are exact, prefix, regex"},
    {VS_ROUTE("    match: [{headers: {a: {regex: ''}}}]\n"), /* VS-MATCH-15 */
     "f.yaml:8: error: spec.http[0].match[0].headers.a.regex: must not be empty"},
    {VS_ROUTE("    match: [{headers: {a: {exact: ''}}}]\n"), ""}, /* VS-MATCH-16 */
    {VS_ROUTE("    redirect: {uri: /b}\n"),                       /* VS-ROUTE-14 */
     "f.yaml:7: error: spec.http[0]: route and redirect exclude each other"},
    {VS("  hosts: [a]\n  http:\n  - timeout: 1s\n"),
     "f.yaml:7: error: spec.http[0]: needs one of route, redirect, directResponse, "
     "delegate"},
    {VS("  hosts: [a]\n  http: [{redirect: {redirectCode: 200}}]\n"),
     "f.yaml:6: error: spec.http[0].redirect.redirectCode: 200 is out of range: 300 to "
     "399"},
    {VS("  hosts: [a]\n  http: [{redirect: {}}]\n"), /* VS-RD-5 */
     "f.yaml:6: error: spec.http[0].redirect: needs one of uri, prefixRewrite, "
     "authority, "
     "scheme, port"},
    {VS("  hosts: [a]\n  http: [{redirect: {uri: /x, redirectCode: 304}}]\n"), /* VS-RD-4
                                                                                */
     "f.yaml:6: warning: spec.http[0].redirect: redirectCode 304 gives no redirect: use "
     "301, 302, 303, 307, 308"},
    {VS("  hosts: [a]\n  http:\n  - match: [{uri: {exact: /x}}]\n    redirect: "
        "{prefixRewrite: /y}\n"), /* VS-RD-1 */
     "f.yaml:7: error: spec.http[0]: redirect.prefixRewrite: needs every match's uri to "
     "be "
     "a prefix"},
    {VS("  hosts: [a]\n  http: [{directResponse: {status: 99}}]\n"),
     "f.yaml:6: error: spec.http[0].directResponse.status: 99 is out of range: 200 to "
     "599"},
    {VS("  hosts: [a]\n  http: [{directResponse: {status: 200, body: {bytes: '$'}}}]\n"),
     "f.yaml:6: error: spec.http[0].directResponse.body: bytes: is no base64"},
    {VS("  hosts: [a]\n  http:\n  - route: [{destination: {host: a}, weight: 0}, "
        "{destination: {host: b}}]\n"), /* VS-ROUTE-14 */
     "f.yaml:7: error: spec.http[0]: route: the weights' sum is 0: with several "
     "destinations it must be more"},
    {VS_ROUTE("    fault: {abort: {percentage: {value: 101}, httpStatus: 500}}\n"),
     "f.yaml:8: error: spec.http[0].fault.abort.percentage.value: 101 is out of range: 0 "
     "to 100"},
    {VS_ROUTE("    fault: {abort: {percentage: {value: 10}}}\n"),
     "f.yaml:8: error: spec.http[0].fault.abort: needs one of httpStatus, grpcStatus"},
    {VS_ROUTE("    fault: {abort: {grpcStatus: UNAVALABLE}}\n"),
     "f.yaml:8: error: spec.http[0].fault.abort.grpcStatus: unknown value "
     "\"UNAVALABLE\": "
     "did you mean UNAVAILABLE? Allowed are OK, CANCELLED, UNKNOWN, INVALID_ARGUMENT, "
     "DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, "
     "RESOURCE_EXHAUSTED, FAILED_PRECONDITION, ABORTED, OUT_OF_RANGE, UNIMPLEMENTED, "
     "INTERNAL, UNAVAILABLE, DATA_LOSS, UNAUTHENTICATED"},
    {VS_ROUTE("    fault: {delay: {exponentialDelay: 1s}}\n"), /* VS-FAULT-1 */
     "f.yaml:8: error: unknown field spec.http[0].fault.delay.exponentialDelay: allowed "
     "are fixedDelay, percentage, percent\n"
     "f.yaml:8: error: spec.http[0].fault.delay.fixedDelay: is missing"},
    {VS_ROUTE("    fault: {}\n"), /* VS-FAULT-6 */
     "f.yaml:8: error: spec.http[0].fault: needs delay or abort"},
    {VS_ROUTE("    headers: {request: {set: {'a b': c}}}\n"), /* VS-HDR-5 */
     "f.yaml:8: error: spec.http[0].headers.request: \"a b\" is no header name (RFC 9110 "
     "§5.1)"},
    {VS_ROUTE("    headers: {response: {add: {a: \"b\\nc\"}}}\n"),
     "f.yaml:8: error: spec.http[0].headers.response: a: has a line end in its value"},
    {VS_ROUTE("    mirrorPercentage: {value: 3}\n"),
     "f.yaml:7: error: spec.http[0]: mirrorPercentage: without mirror"},
    {VS_ROUTE("    mirror: {host: b}\n    mirrors: [{destination: {host: c}}]\n"),
     "f.yaml:7: error: spec.http[0]: mirror and mirrors exclude each other"},
    {VS_ROUTE("    corsPolicy: {maxAge: 1500ms}\n"), /* VS-CORS-6 */
     "f.yaml:8: error: spec.http[0].corsPolicy: maxAge: whole seconds only"},
    {VS_ROUTE("    rewrite: {}\n"), "f.yaml:8: error: spec.http[0].rewrite: needs one of "
                                    "uri, uriRegexRewrite, authority"},
    {VS("  hosts: [a]\n  exportTo: ['*', b]\n  http: [{route: [{destination: {host: "
        "a}}]}]\n"), /* EXP-2 */
     "f.yaml:6: error: spec.exportTo: * can't be combined with others"},
    {VS("  hosts: [a]\n  exportTo: [., shop]\n  http: [{route: [{destination: {host: "
        "a}}]}]\n"),
     "f.yaml:6: error: spec.exportTo: shop is there twice"},
    {VS("  hosts: [a.com]\n  tls: [{match: [{sniHosts: [b.com]}], route: [{destination: "
        "{host: a}}]}]\n"), /* VS-TLS-1 */
     "f.yaml:6: error: spec: tls: sniHosts b.com is not among the hosts"},
    /* --- DestinationRule --- */
    {DR("  trafficPolicy: {}\n"), /* DR-17 */
     "f.yaml:6: error: spec.trafficPolicy: is empty: set loadBalancer, connectionPool, "
     "outlierDetection, tls …"},
    {DR("  trafficPolicy: {loadBalancer: {simple: ROUNDROBIN}}\n"),
     "f.yaml:6: error: spec.trafficPolicy.loadBalancer.simple: unknown value "
     "\"ROUNDROBIN\": did you mean ROUND_ROBIN? Allowed are UNSPECIFIED, LEAST_REQUEST, "
     "LEAST_CONN, ROUND_ROBIN, RANDOM, PASSTHROUGH"},
    {DR("  trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: "
        "true}}}\n"),
     "f.yaml:6: error: spec.trafficPolicy.loadBalancer: simple and consistentHash "
     "exclude "
     "each other"},
    {DR("  trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: "
        "{tableSize: 65536}}}}\n"), /* DR-LB-7 */
     "f.yaml:6: error: spec.trafficPolicy.loadBalancer.consistentHash.maglev: tableSize: "
     "65536 is no prime number"},
    {DR("  trafficPolicy: {outlierDetection: {consecutiveLocalOriginFailures: 3}}\n"),
     "f.yaml:6: error: spec.trafficPolicy.outlierDetection: "
     "consecutiveLocalOriginFailures: needs splitExternalLocalOriginErrors"},
    {DR("  trafficPolicy: {outlierDetection: {consecutiveErrors: 3}}\n"), /* DR-OD-11 */
     "f.yaml:6: warning: spec.trafficPolicy.outlierDetection.consecutiveErrors: is not "
     "supported yet: it has no effect"},
    {DR("  trafficPolicy: {tls: {mode: MUTUAL}}\n"), /* DR-TLS-3 */
     "f.yaml:6: error: spec.trafficPolicy.tls: MUTUAL needs clientCertificate and "
     "privateKey, or credentialName"},
    {DR("  subsets: [{name: v1}, {name: v1}]\n"),
     "f.yaml:6: error: spec: subsets: v1 is there twice"},
    {DR("  workloadSelector: {matchLabels: {a: 'b*'}}\n"), /* SEL-1 */
     "f.yaml:6: error: spec.workloadSelector.matchLabels.a: \"b*\" must not have a * "
     "(selectors know no wildcards)"},
    /* --- Gateway --- */
    {GW("  - {port: {number: 80, name: a, protocol: HTP}, hosts: ['*']}\n"),
     "f.yaml:6: error: spec.servers[0].port.protocol: unknown value \"HTP\": did you "
     "mean "
     "HTTP? Allowed are HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP, TLS, MYSQL, "
     "REDIS, "
     "UDP, HTTP_PROXY"},
    {GW("  - {port: {number: 443, name: a, protocol: HTTPS}, hosts: ['*']}\n"), /* GW-5 */
     "f.yaml:6: error: spec.servers[0]: tls: is missing on a TLS port"},
    {GW("  - {port: {number: 443, name: a, protocol: HTTPS}, hosts: ['*'], tls: {mode: "
        "SIMPLE}}\n"),
     "f.yaml:6: error: spec.servers[0].tls: needs serverCertificate and privateKey, or "
     "credentialName"},
    {GW("  - {port: {number: 80, name: a, protocol: HTTP}, hosts: []}\n"),
     "f.yaml:6: error: spec.servers[0].hosts: must not be empty"},
    {GW("  - {port: {number: 80, name: a, protocol: HTTP}, hosts: [a/b/c]}\n"),
     "f.yaml:6: error: spec.servers[0].hosts: \"a/b/c\" is no host or namespace/host"},
    {GW("  - {port: {number: 80, name: a, protocol: HTTP}, hosts: [b]}\n"
        "  - {port: {number: 81, name: a, protocol: HTTP}, hosts: [b]}\n"), /* GW-13 */
     "f.yaml:6: error: spec: servers: port name a is there twice"},
    /* --- ServiceEntry --- */
    {SE("  hosts: ['*']\n"),
     "f.yaml:5: error: spec.hosts[0]: \"*\" alone would be every host: write "
     "*.example.com"},
    {SE("  hosts: [a.b]\n  resolution: STATIC\n  endpoints: [{address: c.d}]\n"),
     "f.yaml:7: error: spec: endpoints[0].address: \"c.d\" is no IP address, and "
     "resolution is STATIC"},
    {SE("  hosts: ['*.b']\n  resolution: DNS\n"),
     "f.yaml:5: error: spec: hosts: *.b can't be resolved: DNS without endpoints needs "
     "whole names"},
    {SE("  hosts: [a.b]\n  addresses: [10.0.0.0/33]\n"),
     "f.yaml:6: error: spec.addresses[0]: \"10.0.0.0/33\" is no IP address or CIDR"},
    {SE("  hosts: [a.b]\n  ports: [{number: 80, name: a}, {number: 80, name: b}]\n"),
     "f.yaml:6: error: spec: ports: number 80 is there twice"},
    /* --- policies --- */
    {AP("  action: DENNY\n"),
     "f.yaml:5: error: spec.action: unknown value \"DENNY\": did "
     "you mean DENY? Allowed are ALLOW, DENY, AUDIT, CUSTOM"},
    {AP("  action: DENY\n"), /* AP-EVAL-5 */
     "f.yaml:5: error: spec: rules: is missing: without rules it never matches; [{}] "
     "matches all"},
    {AP("  rules: [{from: [{source: {}}]}]\n"), /* AP-FROM-14 */
     "f.yaml:5: error: spec.rules[0].from[0].source: is empty: it would match anyone; "
     "leave from out if that is meant"},
    {AP("  rules: [{from: [{source: {principals: ['']}}]}]\n"),
     "f.yaml:5: error: spec.rules[0].from[0].source.principals[0]: \"\" must not be "
     "empty"},
    {AP("  rules: [{from: []}]\n"),
     "f.yaml:5: error: spec.rules[0]: from: must not be empty"},
    {AP("  rules: [{from: [{source: {ipBlocks: [10.0.0]}}]}]\n"),
     "f.yaml:5: error: spec.rules[0].from[0].source.ipBlocks[0]: \"10.0.0\" is no IP "
     "address or CIDR"},
    {AP("  rules: [{to: [{operation: {ports: [http]}}]}]\n"),
     "f.yaml:5: error: spec.rules[0].to[0].operation.ports[0]: \"http\" is no port: 0 to "
     "65535"},
    {AP("  rules: [{to: [{operation: {paths: ['/a{*}']}}]}]\n"), /* AP-TO-5 */
     "f.yaml:5: error: spec.rules[0].to[0].operation.paths[0]: \"/a{*}\" mixes a "
     "template "
     "with other text: {*} and {**} are whole segments"},
    {AP("  rules: [{to: [{operation: {paths: ['/{**}/{*}']}}]}]\n"),
     "f.yaml:5: error: spec.rules[0].to[0].operation.paths[0]: \"/{**}/{*}\" has "
     "something "
     "after {**}: it must be the last operator"},
    {AP("  rules: [{when: [{key: request.header, values: [a]}]}]\n"), /* AP-WHEN-16 */
     "f.yaml:5: error: spec.rules[0].when[0]: key: unknown attribute request.header: "
     "allowed are source.ip, remote.ip, source.namespace, source.principal, "
     "source.serviceAccount, source.trustDomain, request.auth.principal, "
     "request.auth.audiences, request.auth.presenter, destination.ip, destination.port, "
     "connection.sni, request.headers[NAME], request.auth.claims[NAME]"},
    {AP("  rules: [{when: [{key: source.ip}]}]\n"), /* AP-WHEN-17 */
     "f.yaml:5: error: spec.rules[0].when[0]: needs values or notValues"},
    {AP("  provider: {name: x}\n"),
     "f.yaml:5: error: spec: provider: only with action CUSTOM"},
    {AP("  selector: {}\n  targetRef: {kind: Service, name: a}\n"), /* ATT-1 */
     "f.yaml:5: error: spec: selector and targetRef exclude each other"},
    {PA("  mtls: {mode: STRCT}\n"),
     "f.yaml:5: error: spec.mtls.mode: unknown value \"STRCT\": did you mean STRICT? "
     "Allowed are UNSET, DISABLE, PERMISSIVE, STRICT"},
    {PA("  portLevelMtls: {80: {mode: STRICT}}\n"), /* PA-8 */
     "f.yaml:5: error: spec: portLevelMtls: needs a selector"},
    {PA("  portLevelMtls: {http: {mode: STRICT}}\n"),
     "f.yaml:5: error: spec.portLevelMtls: \"http\" is no port: 1 to 65535"},
    /* --- Kubernetes --- */
    {SVC("  selecter: {app: a}\n  ports: [{port: 80}]\n"),
     "f.yaml:5: error: unknown field spec.selecter: did you mean selector? Allowed are "
     "ports, selector, clusterIP, clusterIPs, type, externalName, "
     "publishNotReadyAddresses, internalTrafficPolicy, trafficDistribution, ipFamilies, "
     "ipFamilyPolicy, sessionAffinity, externalIPs, loadBalancerIP, "
     "allocateLoadBalancerNodePorts, sessionAffinityConfig, externalTrafficPolicy, "
     "healthCheckNodePort, loadBalancerClass, loadBalancerSourceRanges"},
    {SVC("  ports: [{port: 80, protocol: HTTP}]\n"),
     "f.yaml:5: error: spec.ports[0].protocol: \"HTTP\" must be TCP, UDP or SCTP"},
    {SVC("  ports: [{port: 80}, {port: 81}]\n"),
     "f.yaml:5: error: spec.ports: [0].name: is missing: with several ports each needs "
     "one\nf.yaml:5: error: spec.ports: [1].name: is missing: with several ports each "
     "needs one"},
    {"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, labels: "
     "{kubernetes.io/service-name: a}}\naddressType: IPv4\nendpoints:\n- addresses: "
     "[nowhere]\n",
     "f.yaml:1: error: endpoints[0].addresses: \"nowhere\" is no IP address"},
    {"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nstatus: {podIP: here}\n",
     "f.yaml:4: error: status.podIP: \"here\" is no IP address"},
    {"apiVersion: v1\nkind: Service\nmetadata: {name: a.b}\nspec: {ports: [{port: "
     "80}]}\n",
     "f.yaml:1: error: metadata.name: a Service's name has no dots"},
    /* --- several documents --- */
    {"---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\n"
     "kind: Namespace\nmetadata: {name: A}\n",
     "f.yaml:8: error: metadata.name: \"A\" is no name: a-z, 0-9, - and . only"},
    {"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: "
     "{name: a}}\n- {apiVersion: v1, kind: Namespace, metadata: {nam: b}}\n",
     "f.yaml:5: error: unknown field metadata.nam: did you mean name? Allowed are name, "
     "namespace, labels, annotations, creationTimestamp, uid, resourceVersion, "
     "generation, generateName, managedFields, ownerReferences, finalizers, "
     "deletionTimestamp, deletionGracePeriodSeconds, selfLink\n"
     "f.yaml:5: error: metadata.name: is missing"},
};

static const hd_decode_conf_t conf = {HD_STR_INIT("cluster.local"),
                                      HD_STR_INIT("istio-system")};

static const char *findings(hd_pool_t *pool, const char *text, hd_decoded_t *out)
{
    hd_str_t all = HD_STR("");

    hd_decode_text(pool, &conf, HD_STR("f.yaml"), hd_str_c(text), out);
    for (size_t i = 0; i < out->statuses.n; i++) {
        hd_str_t line = hd_status_print(pool, &out->statuses.items[i]);

        all = hd_str_printf(pool, "%.*s%s%.*s", HD_STR_ARG(all), i > 0 ? "\n" : "",
                            HD_STR_ARG(line));
    }
    for (size_t i = 0; i < out->n; i++)
        hd_object_destroy(out->objs[i]);
    return all.data;
}

static void test_rows(void)
{
    for (size_t i = 0; i < hd_countof(rows); i++) {
        hd_pool_t *pool = hd_pool_create(0);
        hd_decoded_t out;
        const char *got = findings(pool, rows[i].text, &out);
        size_t len = strlen(rows[i].findings);

        /* libyaml's words are its own: a row that ends in a space is a beginning. */
        if (len > 0 && rows[i].findings[len - 1] == ' ') {
            ok(strncmp(got, rows[i].findings, len) == 0 && strlen(got) > len, "row %zu",
               i);
        } else {
            is_str(got, rows[i].findings, "row %zu: %.60s", i, rows[i].findings);
        }
        hd_pool_destroy(pool);
    }
}

/* Every prefix of a good file is either good or an error: never a crash, and never an
 * object that isn't one of the whole file's. */
static void test_cut(void)
{
    static const char text[] =
        VS("  hosts: [a]\n  http:\n  - match: [{uri: {prefix: /a}}]\n    route:\n"
           "    - destination: {host: a, subset: v1}\n      weight: 90\n"
           "    - destination: {host: b}\n      weight: 10\n");
    hd_pool_t *pool = hd_pool_create(0);
    size_t whole = 0;

    for (size_t len = 0; len < sizeof(text); len++) {
        hd_decoded_t out;

        hd_decode_text(pool, &conf, HD_STR("f"), hd_str_n(text, len), &out);
        whole += out.n;
        for (size_t i = 0; i < out.n; i++)
            hd_object_destroy(out.objs[i]);
        hd_pool_reset(pool);
    }
    ok(whole >= 1, "the whole is an object (%zu prefixes are)", whole);
    hd_pool_destroy(pool);
}

/* Limits: aliases that would expand to billions, nesting, size, number of findings. */
static void test_limits(void)
{
    hd_pool_t *pool = hd_pool_create(0);
    hd_str_t text = HD_STR("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    hd_decoded_t out;
    char *deep = malloc(20001);
    const char *got;
    char *big = malloc(HD_YAML_BYTES_MAX + 2);
    size_t n = 0;

    for (int i = 1; i < 10; i++)
        text = hd_str_printf(
            pool, "%.*sa%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n",
            HD_STR_ARG(text), i, i, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1, i - 1);
    got = findings(pool, text.data, &out);
    ok(strstr(got, "more than 1000000 values, with aliases expanded") != NULL, "%s", got);
    is_int(out.keep, HD_KEEP_ALL);

    memset(deep, '[', 20000);
    deep[20000] = '\0';
    got = findings(pool, deep, &out);
    ok(strstr(got, "nested deeper than 40 levels") != NULL, "%s", got);

    memset(big, '#', HD_YAML_BYTES_MAX + 1);
    big[HD_YAML_BYTES_MAX + 1] = '\0';
    got = findings(pool, big, &out);
    ok(strstr(got, "larger than 8388608 bytes") != NULL, "%s", got);

    text = HD_STR("");
    for (int i = 0; i < 3000; i++)
        text = hd_str_printf(pool, "---\n[]\n%.*s", HD_STR_ARG(text));
    findings(pool, text.data, &out);
    for (size_t i = 0; i < out.statuses.n; i++)
        n++;
    is_int(n, 1001, "findings are bounded, and the last says so");
    free(deep);
    free(big);
    hd_pool_destroy(pool);
}

int main(void)
{
    test_rows();
    test_cut();
    test_limits();
    return done_testing();
}
