/* heddle: the program. Until the processes are in place it only tells what it is. */
#include <stdio.h>
#include <string.h>

#include "hd_auto_config.h"
#include "hd_version.h"

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "-v") == 0) {
        fprintf(stderr, "heddle version: heddle/%s\n", HD_VERSION);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "-V") == 0) {
        fprintf(stderr, "heddle version: heddle/%s\n", HD_VERSION);
        fprintf(stderr, "built by %s\n", HD_COMPILER);
        fprintf(stderr, "configure arguments: %s\n", HD_CONFIGURE);
        return 0;
    }
    fprintf(stderr, "usage: heddle -v | -V\n");
    return 1;
}
