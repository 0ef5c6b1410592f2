/* hd_stapling: answers of OCSP responders about our own certificates: the agent asks, once
 * for all workers, and publishes what counts (hd_staple_t, core/net/hd_ocsp.h).
 *
 *   files arena:    "staple of SECRET" --agent--> responder
 *   dynamic arena:  "staple for SECRET" <--agent--'        read by handshakes, by name
 *
 * Asked again well before an answer ends, after an hour at the latest, and after a
 * failure soon, then ever later. What was answered stays in force until its time is over,
 * or until the responder says that the certificate is good no longer. An agent that takes
 * over, and a changed configuration, judge what is there anew before they keep it.
 */
#pragma once

/* Its part in the agent's process. */
void hd_stapling_register(void);
