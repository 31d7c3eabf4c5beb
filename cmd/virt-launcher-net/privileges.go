package main

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// giveUpPrivileges gives up every capability, for good and in all threads: the
// sockets are open, and what is left to do needs none. There are exceptions. A
// QEMU driver that runs in this process starts and ends the VM. NET_ADMIN can be kept
// at hand, but not in effect until it is taken up: for the port guard's counters, see
// withNetAdmin, and for putting the pod back at the end, see takeUpPrivileges.
func giveUpPrivileges(embedded, keepNetAdmin bool) error {
	if embedded {
		return nil
	}
	// Otherwise root would get them back by an execve(2).
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	left := cap.NewSet()
	if had, err := cap.GetProc().GetFlag(cap.Permitted, cap.NET_ADMIN); had && err == nil && keepNetAdmin {
		if err := left.SetFlag(cap.Permitted, true, cap.NET_ADMIN); err != nil {
			return fmt.Errorf("keep NET_ADMIN: %w", err)
		}
	}
	if err := left.SetProc(); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	return nil
}

// takeUpPrivileges puts what was kept in effect, in all threads.
func takeUpPrivileges() error {
	set := cap.GetProc()
	err := set.Fill(cap.Effective, cap.Permitted)
	if err == nil {
		err = set.SetProc()
	}
	if err != nil {
		return fmt.Errorf("take up capabilities: %w", err)
	}
	return nil
}

// withNetAdmin runs fn with NET_ADMIN in effect in its thread alone.
func withNetAdmin(fn func() error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had, with [2]unix.CapUserData
	if err := unix.Capget(&header, &had[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	with = had
	with[0].Effective |= had[0].Permitted & (1 << unix.CAP_NET_ADMIN)
	if with == had {
		return fn()
	}
	if err := unix.Capset(&header, &with[0]); err != nil {
		return fmt.Errorf("take up NET_ADMIN: %w", err)
	}
	defer func() {
		if e := unix.Capset(&header, &had[0]); e != nil && err == nil {
			err = fmt.Errorf("give NET_ADMIN back: %w", e)
		}
	}()
	return fn()
}
