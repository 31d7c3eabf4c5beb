//go:build cgo && libvirt_dlopen

package main

// To load libvirt, and with it some forty libraries, takes several times as long as what
// most commands do. Its Go binding has it loaded when the program starts, by registering
// an error handler, whatever the program is to do. libvirt_dlopen.c puts that off.

// #cgo LDFLAGS: -Wl,--wrap=dlopen -Wl,--wrap=dlsym
import "C"
