/* hd_udp: protocol "udp": each client's datagrams to an upstream's socket of its own, and
 * what comes back from there to the client. Settings as TCP's: hd_tcp_conf_t.
 *
 * A client is an address and port at one of our addresses. Its datagrams come by the
 * listener's socket and are told apart here. When that socket is closed (the listener was
 * removed, the process drains), a session gets a socket of its own, connected to its
 * client, and goes on. That is not done from the start: it would cost a DNS query five
 * system calls more, up to Linux 6.12 the kernel walks a port's connected sockets for
 * each datagram, and the workers' shares of a port would change with each session.
 * Counted: heddle_udp_sessions_total, heddle_udp_dropped_total (datagrams, by why).
 */
#pragma once
#include "stream/hd_tcp.h"

/* The number of protocol "udp"; registers it when first asked, at process start. */
uint16_t hd_udp_protocol(void);

/* For hd_session.c. */
struct hd_session_s *hd_udp_session_of(const hd_conn_t *c);
