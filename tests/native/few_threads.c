/* Preloaded, it lets a process start FEW_THREADS threads and no more, as a limit on processes does (which binds no root). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

typedef int (*creates)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) {
  static atomic_int made;
  const char* most = getenv("FEW_THREADS");
  if (most != NULL && atomic_fetch_add(&made, 1) >= atoi(most)) return EAGAIN;
  return ((creates)dlsym(RTLD_NEXT, "pthread_create"))(thread, attributes, run, argument);
}
