/* hd_nginx_words: what `nginx -V` says of its build, in configure's words, as far as it is
 * true here: tools that read them look for what a server can do. Each word has a directive
 * of its module, and is true if that is known, built in or by the modules' index. */
#pragma once
#include "core/base/hd_pool.h"
#include "core/base/hd_str.h"

/* "--with-http_ssl_module … --without-http_ssi_module …", in <pool>. Modules that nginx has
 * by default aren't named if they are here, those that it has on demand not if they aren't. */
hd_str_t hd_nginx_words(hd_pool_t *pool);
