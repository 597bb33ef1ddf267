// AddressSanitizer's interface where it is on, nothing where it is off.
#pragma once

#if defined(__SANITIZE_ADDRESS__)
#define CCFAST_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CCFAST_ASAN
#endif
#endif

#ifdef CCFAST_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
