// linux/tcp.h and netinet/tcp.h exclude each other, so that this stands alone.
#include "CApus.h"
#include <linux/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

int apus_transmission(int descriptor, uint64_t *transmitted, uint64_t *acknowledged) {
    struct tcp_info info;
    socklen_t length = sizeof info;
    memset(&info, 0, sizeof info);
    if (getsockopt(descriptor, 6, TCP_INFO, &info, &length) != 0) return -1;
    if (length < offsetof(struct tcp_info, tcpi_bytes_sent) + sizeof info.tcpi_bytes_sent) return -1;
    *transmitted = info.tcpi_bytes_sent - info.tcpi_bytes_retrans;
    // The SYN counts as one.
    *acknowledged = info.tcpi_bytes_acked > 0 ? info.tcpi_bytes_acked - 1 : 0;
    return 0;
}

int apus_has_ended(int descriptor) {
    char byte;
    return recv(descriptor, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}
