/* What ten thousand idle conns cost is what these cost: promises, and what they add up
 * to. What OpenSSL takes of an idle TLS conn is measured in t/proxy/idle_memory.t. */
#include "core/net/hd_conn_int.h"
#include "core/net/hd_tls_int.h"
#include "http/hd_h1_server_int.h"
#include "t/lib/tap.h"

/* What malloc takes for it: a word, and steps of 16. */
#define HEAP(bytes) (hd_align_up((size_t)(bytes) + 8, 16))

int main(void)
{
    size_t loop_bytes = sizeof(hd_watch_slot_t) + sizeof(hd_heap_item_t);
    size_t plain = sizeof(hd_conn_cell_t) + HEAP(sizeof(hd_h1_idle_t)) + loop_bytes;

    ok(sizeof(hd_conn_t) <= 240, "a conn: %zu bytes", sizeof(hd_conn_t));
    ok(sizeof(hd_conn_cell_t) <= 288, "with its socket: %zu", sizeof(hd_conn_cell_t));
    ok(sizeof(hd_h1_idle_t) <= 56, "HTTP/1 between requests: %zu", sizeof(hd_h1_idle_t));
    ok(loop_bytes <= 32, "its places in the loop: %zu", loop_bytes);
    ok(plain <= 384, "an idle plain keep-alive conn: %zu", plain);
    ok(sizeof(hd_tls_layer_t) <= 128, "a layer of TLS, OpenSSL's part left out: %zu",
       sizeof(hd_tls_layer_t));
    ok(sizeof(hd_conn_facts_t) <= 160, "what a conn knows of its peer: %zu",
       sizeof(hd_conn_facts_t));
    return done_testing();
}
