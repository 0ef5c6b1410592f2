/* hd_version: the one place that says which version this is. */
#pragma once

#define HD_VERSION "0.1.0"
