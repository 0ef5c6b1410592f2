#include "core/os/hd_os.h"
#include <errno.h>
#include <linux/tcp.h> /* netinet/tcp.h of the C library ends before tcpi_bytes_acked */
#include <netinet/in.h>
#include <sys/socket.h>

int hd_os_tcp_acked(int fd, uint64_t *bytes)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        return -1;
    if (len < offsetof(struct tcp_info, tcpi_bytes_acked) + sizeof(*bytes)) {
        errno = ENOSYS; /* a kernel before 4.1 */
        return -1;
    }
    *bytes = info.tcpi_bytes_acked;
    return 0;
}
