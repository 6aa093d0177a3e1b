#ifndef CAPUS_H
#define CAPUS_H
#include <nghttp2/nghttp2.h>
#endif
