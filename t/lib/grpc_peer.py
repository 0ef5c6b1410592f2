#!/usr/bin/python3
"""Both ends of gRPC, by grpcio; messages are plain bytes.

    grpc_peer.py serve PORT [CERT KEY]
        /t.T/Echo one to one; /t.T/Sum many to one: their number and length; /t.T/Count one, a
        number N, to N; /t.T/Chat each comes back at once; /t.T/Fail NOT_FOUND "none such: 50%";
        /t.T/Wait answers when its client is gone. All have the trailing field t-end.
    grpc_peer.py call ADDRESS
        lines of JSON in: {"method", "messages": [...], "timeout", "metadata": {...}, "size": bytes of
        each message}; lines of JSON out: {"code", "details", "messages": [...] (of them length and
        beginning), "trailing": {...}}. With "chat" each message waits for the answer to the last.
"""
import json, sys, threading
from concurrent import futures
import grpc

END = (('t-end', 'yes'),)


def serve(port, cert=None, key=None):
    def echo(m, c):
        c.set_trailing_metadata(END + tuple(('t-got', k + '=' + v) for k, v in c.invocation_metadata()
                                            if k.startswith('x-')))
        return m

    def total(messages, c):
        c.set_trailing_metadata(END)
        n = size = 0
        for m in messages:
            n, size = n + 1, size + len(m)
        return b'%d %d' % (n, size)

    def count(m, c):
        c.set_trailing_metadata(END)
        n, _, size = m.partition(b' ')
        for i in range(int(n)):
            yield b'%d ' % i + b'x' * int(size or 0)

    def chat(messages, c):
        c.set_trailing_metadata(END)
        yield from messages

    def fail(m, c):
        c.set_trailing_metadata(END)
        c.abort(grpc.StatusCode.NOT_FOUND, 'none such: 50%')

    def wait(m, c):
        gone = threading.Event()
        c.add_callback(gone.set)
        gone.wait()
        return m

    handlers = {
        'Echo': grpc.unary_unary_rpc_method_handler(echo),
        'Sum': grpc.stream_unary_rpc_method_handler(total),
        'Count': grpc.unary_stream_rpc_method_handler(count),
        'Chat': grpc.stream_stream_rpc_method_handler(chat),
        'Fail': grpc.unary_unary_rpc_method_handler(fail),
        'Wait': grpc.unary_unary_rpc_method_handler(wait),
    }
    server = grpc.server(futures.ThreadPoolExecutor(16), options=[('grpc.so_reuseport', 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler('t.T', handlers),))
    address = '127.0.0.1:' + port
    if cert:
        pair = (open(key, 'rb').read(), open(cert, 'rb').read())
        ok = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
    else:
        ok = server.add_insecure_port(address)
    server.start()
    print('ready' if ok else 'no port', flush=True)
    sys.stdin.read()
    server.stop(None)


def call(address):
    channel = grpc.insecure_channel(address)
    for line in sys.stdin:
        print(json.dumps(one_call(channel, json.loads(line))), flush=True)


def one_call(channel, what):
    got, answered = [], threading.Semaphore(0)

    def messages():
        for i, m in enumerate(what.get('messages', [''])):
            if i and what.get('chat'):
                answered.acquire()
            yield m.encode().ljust(what.get('size', 0), b'.')

    stub = channel.stream_stream('/t.T/' + what['method'])
    c = stub(messages(), timeout=what.get('timeout'), metadata=tuple(what.get('metadata', {}).items()))
    try:
        for m in c:
            got.append([len(m), m[:40].decode()])
            answered.release()
    except grpc.RpcError:
        pass
    return {'code': c.code().name, 'details': c.details(), 'messages': got,
            'trailing': {k: v for k, v in c.trailing_metadata() or ()}}


if sys.argv[1] == 'serve':
    serve(*sys.argv[2:])
else:
    call(sys.argv[2])
