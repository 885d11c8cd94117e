/* Put before every C++ file of tachyon-ipc by .cargo/config.toml.
 *
 * The core asks for GCC 14 or Clang 17, but older GCC trips over two spellings only:
 * `__has_feature(..)` in an #if, and a GNU attribute that stands before `alignas`.
 * The code that comes out is the same. The standard headers come first, since they
 * need the real `alignas`. */
#if defined(__cplusplus) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 14
#include <atomic>
#include <cstddef>
#include <expected>
#include <new>
#include <span>
#include <string>
#define __has_feature(feature) 0
#define alignas(bytes) __attribute__((aligned(bytes)))
#endif
