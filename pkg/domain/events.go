//go:build linux && cgo && libvirt_dlopen

package domain

import (
	"fmt"
	"sync"
	"sync/atomic"

	"libvirt.org/go/libvirt"
)

// events is libvirt's default event loop: there is one in a process, and its
// registration can't be undone. It runs while a VM is open.
var events eventLoop

var registerEvents = sync.OnceValue(libvirt.EventRegisterDefaultImpl)

type eventLoop struct {
	mu    sync.Mutex
	users int
	stop  func()
}

// acquire has the loop run until release is called as often. It loads libvirt.
func (l *eventLoop) acquire() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := registerEvents(); err != nil {
		return fmt.Errorf("load libvirt: %w: is it installed here (libvirt0, libvirt-libs)?", plain(err))
	}
	if l.users == 0 {
		stop, err := runEvents()
		if err != nil {
			return err
		}
		l.stop = stop
	}
	l.users++
	return nil
}

func (l *eventLoop) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users--; l.users == 0 {
		l.stop()
	}
}

// runEvents runs the loop in a goroutine until stop is called, which returns
// when it has ended.
func runEvents() (stop func(), err error) {
	// The loop sleeps until an event; stop sets off this timer.
	timer, err := libvirt.EventAddTimeout(-1, func(int) {})
	if err != nil {
		return nil, fmt.Errorf("add a timer to libvirt's event loop: %w", plain(err))
	}
	var stopping atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stopping.Load() {
			if err := libvirt.EventRunDefaultImpl(); err != nil {
				return
			}
		}
	}()
	return func() {
		stopping.Store(true)
		libvirt.EventUpdateTimeout(timer, 0)
		<-done
		_ = libvirt.EventRemoveTimeout(timer) // fails only if there is no such timer
	}, nil
}
