/* hd_grpc_server: gRPC methods answered by the control process, over the HTTP engine's
 * services: framing, deadlines left to the caller, status in trailers. One thread,
 * nothing blocks. */
#pragma once
#include "core/base/hd_err.h"
#include "core/base/hd_pool.h"
#include "core/base/hd_str.h"
#include "core/net/hd_loop.h"

typedef struct hd_grpc_stream_s hd_grpc_stream_t;

/* gRPC's numbers, as far as we send them. */
enum {
    HD_GRPC_OK = 0,
    HD_GRPC_INVALID_ARGUMENT = 3,
    HD_GRPC_PERMISSION_DENIED = 7,
    HD_GRPC_RESOURCE_EXHAUSTED = 8,
    HD_GRPC_UNIMPLEMENTED = 12,
    HD_GRPC_INTERNAL = 13,
    HD_GRPC_UNAVAILABLE = 14,
    HD_GRPC_UNAUTHENTICATED = 16,
};

typedef struct {
    const char *path;   /* "/package.Service/Method" */
    size_t message_max; /* bytes of one message from the client */
    /* State of the method: zeroed, in the stream's pool. */
    size_t state_size;
    /* The call begins. A refusal is hd_grpc_stream_end. */
    void (*on_open)(hd_grpc_stream_t *s, void *state);
    void (*on_message)(hd_grpc_stream_t *s, void *state, hd_str_t bytes);
    /* The client's half is over. */
    void (*on_half_close)(hd_grpc_stream_t *s, void *state);
    /* There is room again after hd_grpc_stream_is_full said no. May be NULL. */
    void (*on_drained)(hd_grpc_stream_t *s, void *state);
    /* Once, last, however it ended. */
    void (*on_closed)(hd_grpc_stream_t *s, void *state);
} hd_grpc_method_t;

/* At process start: <methods> up to one with path NULL; must stay. */
void hd_grpc_server_add(const hd_grpc_method_t *methods);
/* The service that routes name ("grpc"); registers it. */
void hd_grpc_server_register(void);

hd_pool_t *hd_grpc_stream_pool(hd_grpc_stream_t *s);
hd_loop_t *hd_grpc_stream_loop(hd_grpc_stream_t *s);
/* A metadata value; empty: none. */
hd_str_t hd_grpc_stream_metadata(hd_grpc_stream_t *s, hd_str_t name);
/* "Bearer TOKEN" of authorization; empty: none. */
hd_str_t hd_grpc_stream_token(hd_grpc_stream_t *s);
/* The verified SPIFFE ID of the client's certificate; empty: none. */
hd_str_t hd_grpc_stream_peer(hd_grpc_stream_t *s);
void hd_grpc_stream_send(hd_grpc_stream_t *s, const void *bytes, size_t len);
bool hd_grpc_stream_is_full(hd_grpc_stream_t *s);
/* Ends the call; <s> hears on_closed later. <text> may be empty. */
void hd_grpc_stream_end(hd_grpc_stream_t *s, unsigned status, hd_str_t text);
