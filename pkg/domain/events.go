//go:build linux && cgo && libvirt_dlopen

package domain

import (
	"fmt"
	"sync"

	"libvirt.org/go/libvirt"
)

// runEvents loads libvirt and runs its default event loop from then on: a process
// has one, and its registration can't be undone. It sleeps until there is an event.
var runEvents = sync.OnceValue(func() error {
	err := libvirt.EventRegisterDefaultImpl()
	if err != nil {
		return fmt.Errorf("load libvirt: %w: is it installed here (libvirt0, libvirt-libs)?", plain(err))
	}
	go func() {
		for err == nil {
			err = libvirt.EventRunDefaultImpl()
		}
	}()
	return nil
})
