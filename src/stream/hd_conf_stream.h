/* hd_conf_stream: nginx's `stream { … }` block: directives to listeners of protocol tcp.
 */
#pragma once
#include "core/hd_module.h"

extern const hd_module_t hd_stream_module;
