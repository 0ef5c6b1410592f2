#!/usr/bin/python3
"""A small xDS server for tests: ADS (delta and state of the world), SDS by its own service and
Istio's CreateCertificate, with messages in upstream's form. Not Heddle's control plane.

    xds_server.py PORT DIR DESCRIPTORS

DIR/resources.json, read anew whenever it changes:
    {"CDS": [{"name": ..., ...}], "EDS": [...], "LDS": ..., "RDS": ..., "SDS": ...,
     "removed": false,      // true: a first answer also lists what the client holds and we don't
     "raw": {"CDS": [["name", "hex"]]},     // bytes as they are
     "garbage": false,      // true: answers are no protobuf
     "silent": ["EDS"],     // types that get no answer
     "ca_seconds": 86400,   // how long the CA's certificates are good
     "down": false}         // true: streams are ended, new ones refused
Resources are JSON as in Envoy's documentation, bytes {"base64": ...} if they are no text; DESCRIPTORS is the set of our .proto files.
DIR/events: a line of JSON for each request that came. DIR/ca.pem, ca.key: the CA.
"""
import base64, hashlib, json, os, queue, subprocess, sys, tempfile, threading, time
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

PORT, DIR, DESCRIPTORS = sys.argv[1:4]
TYPES = {
    'CDS': 'envoy.config.cluster.v3.Cluster',
    'EDS': 'envoy.config.endpoint.v3.ClusterLoadAssignment',
    'LDS': 'envoy.config.listener.v3.Listener',
    'RDS': 'envoy.config.route.v3.RouteConfiguration',
    'SDS': 'envoy.extensions.transport_sockets.tls.v3.Secret',
}
URL = {k: 'type.googleapis.com/' + v for k, v in TYPES.items()}
KIND = {v: k for k, v in URL.items()}
ORDER = ['CDS', 'EDS', 'LDS', 'RDS', 'SDS']

pool = descriptor_pool.DescriptorPool()
files = descriptor_pb2.FileDescriptorSet()
with open(DESCRIPTORS, 'rb') as f:
    files.ParseFromString(f.read())
for one in files.file:
    pool.Add(one)
factory = message_factory.MessageFactory(pool)


def message(name):
    return factory.GetPrototype(pool.FindMessageTypeByName(name))


DeltaRequest = message('envoy.service.discovery.v3.DeltaDiscoveryRequest')
DeltaResponse = message('envoy.service.discovery.v3.DeltaDiscoveryResponse')
Request = message('envoy.service.discovery.v3.DiscoveryRequest')
Response = message('envoy.service.discovery.v3.DiscoveryResponse')
CertRequest = message('istio.v1.auth.IstioCertificateRequest')
CertResponse = message('istio.v1.auth.IstioCertificateResponse')


# ---- JSON to messages: json_format is of no use with another pool's well-known types

def fill(msg, value):
    full = msg.DESCRIPTOR.full_name
    if full == 'google.protobuf.Any':
        inner = message(value['@type'].split('/')[-1])()
        rest = {k: v for k, v in value.items() if k != '@type'}
        if inner.DESCRIPTOR.full_name.startswith('google.protobuf.'):
            rest = value.get('value')
        fill(inner, rest)
        msg.type_url = value['@type']
        msg.value = inner.SerializeToString(deterministic=True)
        return
    if full == 'google.protobuf.Duration':
        whole = float(value[:-1])
        msg.seconds = int(whole)
        msg.nanos = round((whole - int(whole)) * 1e9)
        msg.SetInParent()
        return
    if full == 'google.protobuf.Struct':
        msg.SetInParent()
        for k, v in value.items():
            entry = msg.fields[k] if hasattr(msg.fields, 'keys') else msg.fields.add(key=k).value
            fill(entry, v)
        return
    if full == 'google.protobuf.ListValue':
        msg.SetInParent()
        for v in value:
            fill(msg.values.add(), v)
        return
    if full == 'google.protobuf.Value':
        if value is None:
            msg.null_value = 0
        elif isinstance(value, bool):
            msg.bool_value = value
        elif isinstance(value, (int, float)):
            msg.number_value = value
        elif isinstance(value, str):
            msg.string_value = value
        else:
            fill(msg.struct_value if isinstance(value, dict) else msg.list_value, value)
        return
    if full.startswith('google.protobuf.') and full.endswith('Value'):
        msg.value = value.encode() if full.endswith('BytesValue') \
            else scalar(msg.DESCRIPTOR.fields_by_name['value'], value)
        msg.SetInParent()
        return
    msg.SetInParent()
    for key, v in value.items():
        field = msg.DESCRIPTOR.fields_by_name.get(key) or msg.DESCRIPTOR.fields_by_camelcase_name.get(key)
        if field is None:
            raise ValueError('%s has no %s' % (full, key))
        fill_field(msg, field, v)


def scalar(field, v):
    if field.type == field.TYPE_ENUM:
        return v if isinstance(v, int) else field.enum_type.values_by_name[v].number
    if field.type == field.TYPE_BYTES:
        return v.encode() if isinstance(v, str) else base64.b64decode(v['base64'])
    if isinstance(v, str) and field.type != field.TYPE_STRING:  # protobuf's JSON has 64 bits so
        return float(v) if field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT) else int(v)
    return v


def fill_field(msg, field, v):
    is_message = field.type == field.TYPE_MESSAGE
    if is_message and field.message_type.GetOptions().map_entry:
        value_field = field.message_type.fields_by_name['value']
        for k, one in v.items():
            if value_field.type == field.TYPE_MESSAGE:
                fill(getattr(msg, field.name)[k], one)
            else:
                getattr(msg, field.name)[k] = scalar(value_field, one)
    elif field.label == field.LABEL_REPEATED:
        for one in v:
            if is_message:
                fill(getattr(msg, field.name).add(), one)
            else:
                getattr(msg, field.name).append(scalar(field, one))
    elif is_message:
        fill(getattr(msg, field.name), v)
    else:
        setattr(msg, field.name, scalar(field, v))


# ---- what is served

class World:
    def __init__(self):
        self.lock = threading.Condition()
        self.held = {k: {} for k in ORDER}  # name: (version, bytes)
        self.options = {}
        self.number = 0
        self.stamp = None

    def load(self):
        path = DIR + '/resources.json'
        try:
            st = os.stat(path)
            stamp = (st.st_mtime_ns, st.st_ino)
            if stamp == self.stamp:
                return
            with open(path) as f:
                data = json.load(f)
            held = {k: {} for k in ORDER}
            for kind in ORDER:
                for one in data.get(kind, []):
                    msg = message(TYPES[kind])()
                    fill(msg, one)
                    held[kind][one.get('name') or one['cluster_name']] = msg.SerializeToString(deterministic=True)
                for name, text in data.get('raw', {}).get(kind, []):
                    held[kind][name] = bytes.fromhex(text)
        except FileNotFoundError:
            return
        except Exception as e:
            log({'rpc': 'server', 'error': repr(e)})
            self.stamp = stamp
            return
        with self.lock:
            self.stamp = stamp
            self.options = data
            self.number += 1
            self.held = {k: {n: (hashlib.md5(b).hexdigest()[:12], b) for n, b in v.items()}
                         for k, v in held.items()}
            self.lock.notify_all()
        log({'rpc': 'server', 'loaded': self.number})


world = World()
log_lock = threading.Lock()


def log(event):
    with log_lock, open(DIR + '/events', 'a') as f:
        f.write(json.dumps(event) + '\n')


def metadata(context):
    return {k: v for k, v in context.invocation_metadata()}


class Stream:
    """One ADS stream; requests are read by a thread of their own."""

    def __init__(self, requests, context, is_delta):
        self.requests, self.context, self.is_delta = requests, context, is_delta
        self.out = queue.Queue()
        self.sent = {}    # kind: {name: version} that the client has
        self.names = {}   # kind: set of names; None: all
        self.nonces = {}
        self.asked = {}   # kind: names asked for by the request not answered yet; None: nothing
        self.answered = set()
        self.count = 0
        self.node = ''
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for raw in self.requests:
                msg = (DeltaRequest if self.is_delta else Request)()
                msg.ParseFromString(raw)
                self.out.put(msg)
        except Exception:
            pass
        self.out.put(None)

    def take(self, msg):
        kind = KIND.get(msg.type_url)
        if msg.HasField('node'):
            self.node = msg.node.id
        event = {'rpc': 'delta' if self.is_delta else 'sotw', 'type': kind, 'url': msg.type_url,
                 'nonce': msg.response_nonce, 'node': self.node,
                 'authorization': metadata(self.context).get('authorization', '')}
        if msg.HasField('error_detail'):
            event['error'] = msg.error_detail.message
        if self.is_delta:
            event.update(subscribe=list(msg.resource_names_subscribe),
                         unsubscribe=list(msg.resource_names_unsubscribe),
                         initial=dict(msg.initial_resource_versions))
        else:
            event.update(names=list(msg.resource_names), version=msg.version_info)
        log(event)
        if kind is None:
            return
        first = kind not in self.names
        if self.is_delta:
            if first:
                self.sent[kind] = dict(msg.initial_resource_versions)
                self.names[kind] = set() if kind in ('EDS', 'RDS', 'SDS') else None
                self.asked[kind] = set()
            if self.names[kind] is not None:
                self.names[kind] |= set(msg.resource_names_subscribe)
                self.names[kind] -= set(msg.resource_names_unsubscribe)
            if msg.resource_names_subscribe:
                self.asked.setdefault(kind, set())
                self.asked[kind] |= set(msg.resource_names_subscribe)
        else:
            if msg.response_nonce and msg.response_nonce != self.nonces.get(kind):
                return
            names = set(msg.resource_names) if kind in ('EDS', 'RDS', 'SDS') else None
            if first or (names is not None and names - self.names[kind]):
                self.asked[kind] = names
            self.names[kind] = names
            self.sent.setdefault(kind, {})

    def response(self, kind):
        held, sent, names = world.held[kind], self.sent[kind], self.names[kind]
        mine = {n: v for n, v in held.items() if names is None or n in names}
        must = self.asked.get(kind)
        asked = kind in self.asked
        changed = {n: v for n, v in mine.items()
                   if sent.get(n) != v[0] or (asked and must is not None and n in must)}
        gone = [n for n in sent if n not in held]
        if asked and must:
            gone += [n for n in must if n not in held and n not in gone]
        if not asked and not changed and not gone:
            return None
        if not self.is_delta and not asked and not changed and kind in ('EDS', 'RDS', 'SDS'):
            return None
        self.asked.pop(kind, None)
        self.count += 1
        nonce = '%s-%d' % (kind, self.count)
        self.nonces[kind] = nonce
        self.answered.add(kind)
        if self.is_delta:
            msg = DeltaResponse(type_url=URL[kind], nonce=nonce, system_version_info=str(world.number),
                                removed_resources=gone)
            for n, (version, b) in changed.items():
                r = msg.resources.add(name=n, version=version)
                r.resource.type_url, r.resource.value = URL[kind], b
        else:
            msg = Response(type_url=URL[kind], nonce=nonce, version_info=str(world.number))
            for n, (version, b) in mine.items():
                any_ = msg.resources.add()
                any_.type_url, any_.value = URL[kind], b
        self.sent[kind] = {n: v[0] for n, v in mine.items()}
        return msg.SerializeToString()

    def run(self):
        while True:
            try:
                while True:
                    msg = self.out.get(timeout=0.005)
                    if msg is None:
                        return
                    self.take(msg)
                    if self.out.empty():
                        break
            except queue.Empty:
                pass
            if world.options.get('down'):
                self.context.abort(grpc.StatusCode.UNAVAILABLE, 'down')
            for kind in ORDER:
                if kind not in self.names or kind in world.options.get('silent', []):
                    continue
                with world.lock:
                    raw = self.response(kind)
                if raw is not None:
                    yield b'\xff\xff\xff garbage' if world.options.get('garbage') else raw


def delta(requests, context):
    yield from Stream(requests, context, True).run()


def sotw(requests, context):
    yield from Stream(requests, context, False).run()


def create_certificate(raw, context):
    msg = CertRequest()
    msg.ParseFromString(raw)
    log({'rpc': 'ca', 'csr': msg.csr, 'ttl': msg.validity_duration,
         'authorization': metadata(context).get('authorization', '')})
    if world.options.get('ca_down'):
        context.abort(grpc.StatusCode.UNAVAILABLE, 'no certificates today')
    with tempfile.TemporaryDirectory() as tmp:
        with open(tmp + '/csr.pem', 'w') as f:
            f.write(msg.csr)
        # x509 -req knows days only; ca knows dates
        until = time.gmtime(time.time() + world.options.get('ca_seconds', 86400))
        open(tmp + '/index', 'w').close()
        with open(tmp + '/ca.cnf', 'w') as f:
            f.write(f"""[ca]
default_ca = ours
[ours]
database = {tmp}/index
new_certs_dir = {tmp}
rand_serial = yes
default_md = sha256
policy = any
copy_extensions = copy
[any]
commonName = optional
""")
        out = subprocess.run(['openssl', 'ca', '-batch', '-notext', '-config', tmp + '/ca.cnf', '-in', tmp + '/csr.pem',
                              '-cert', DIR + '/ca.pem', '-keyfile', DIR + '/ca.key', '-subj', '/', '-startdate',
                              time.strftime('%Y%m%d%H%M%SZ', time.gmtime(time.time() - 60)),
                              '-enddate', time.strftime('%Y%m%d%H%M%SZ', until)],
                             capture_output=True, text=True, check=True).stdout
    answer = CertResponse(cert_chain=[out, open(DIR + '/ca.pem').read()])
    return answer.SerializeToString()


class Handlers(grpc.GenericRpcHandler):
    def service(self, details):
        ads = '/envoy.service.discovery.v3.AggregatedDiscoveryService/'
        if details.method == ads + 'DeltaAggregatedResources':
            return grpc.stream_stream_rpc_method_handler(delta)
        if details.method == ads + 'StreamAggregatedResources':
            return grpc.stream_stream_rpc_method_handler(sotw)
        sds = '/envoy.service.secret.v3.SecretDiscoveryService/'
        if details.method == sds + 'DeltaSecrets':
            return grpc.stream_stream_rpc_method_handler(delta)
        if details.method == sds + 'StreamSecrets':
            return grpc.stream_stream_rpc_method_handler(sotw)
        if details.method == '/istio.v1.auth.IstioCertificateService/CreateCertificate':
            return grpc.unary_unary_rpc_method_handler(create_certificate)
        log({'rpc': 'unknown', 'method': details.method})
        return None


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16),
                         options=[('grpc.so_reuseport', 0), ('grpc.max_send_message_length', -1)])
    server.add_generic_rpc_handlers((Handlers(),))
    world.load()
    if server.add_insecure_port('127.0.0.1:' + PORT) == 0:
        sys.exit('port %s is in use' % PORT)
    server.start()
    log({'rpc': 'server', 'ready': True})
    while os.getppid() != 1:  # ends with the test
        world.load()
        time.sleep(0.01)


main()
