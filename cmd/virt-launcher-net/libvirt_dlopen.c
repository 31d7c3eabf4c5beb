//go:build cgo && libvirt_dlopen

// Loads libvirt when the first of its functions is called, but for virSetErrorFunc: what
// that is given libvirt gets when it is loaded.

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#define LIBVIRT "libvirt.so.0"

typedef void error_func(void *data, void *error);
typedef void set_error_func(void *data, error_func *handler);

// What the linker (--wrap) calls the functions of libc.
void *__real_dlopen(const char *file, int mode);
void *__real_dlsym(void *handle, const char *name);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char put_off;       // whose address is the handle of libvirt for who opens it
static void *libvirt;      // its handle; NULL: it is not loaded
static error_func *handler; // NULL: none is set
static void *handler_data;
static void *no_auth; // in the place of virConnectAuthPtrDefault, which nobody here uses

static void set_later(void *data, error_func *f) {
	handler_data = data;
	handler = f;
}

static void *load(void) {
	libvirt = __real_dlopen(LIBVIRT, RTLD_NOW | RTLD_LOCAL);
	if (libvirt != NULL && handler != NULL) {
		set_error_func *set = (set_error_func *)__real_dlsym(libvirt, "virSetErrorFunc");
		if (set != NULL) {
			set(handler_data, handler);
		}
	}
	return libvirt;
}

void *__wrap_dlopen(const char *file, int mode) {
	if (file != NULL && strcmp(file, LIBVIRT) == 0) {
		return &put_off;
	}
	return __real_dlopen(file, mode);
}

// dlerror says why the result is NULL.
void *__wrap_dlsym(void *handle, const char *name) {
	if (handle != &put_off) {
		return __real_dlsym(handle, name);
	}
	if (strcmp(name, "virSetErrorFunc") == 0) {
		return (void *)set_later;
	}
	if (strcmp(name, "virConnectAuthPtrDefault") == 0) {
		return &no_auth;
	}
	pthread_mutex_lock(&lock);
	void *loaded = libvirt != NULL ? libvirt : load();
	pthread_mutex_unlock(&lock);
	return loaded != NULL ? __real_dlsym(loaded, name) : NULL;
}
