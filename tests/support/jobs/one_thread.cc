// A test of which ctest says that it has one thread (VARSCOPE_TEST_ONE_THREAD) fails when it starts another
// one: the thread sanitizer does not run it. This definition comes before the C library's.
#include <dlfcn.h>
#include <pthread.h>

#include <cstdio>
#include <cstdlib>

namespace {

using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);

}  // namespace

extern "C" int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                              void* argument) {
  static const auto of_the_library = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  if (std::getenv("VARSCOPE_TEST_ONE_THREAD") != nullptr) {
    std::fputs(
        "this test starts a thread: add it to THREADS in tests/CMakeLists.txt, so that the thread sanitizer watches it\n",
        stderr);
    std::abort();
  }
  return of_the_library(thread, attributes, start, argument);
}
