package main

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// hotplugPrivileges are those that plugging an interface in takes, of a process that had
// them, and is in the pod's network namespace or has a thread there.
func hotplugPrivileges() []cap.Value {
	keep := []cap.Value{cap.NET_ADMIN, cap.NET_RAW, cap.BPF, cap.PERFMON}
	had := cap.GetProc()
	for _, c := range keep {
		if has, err := had.GetFlag(cap.Permitted, c); err != nil || !has { // SYS_ADMIN is in place of the last two
			return append(keep, cap.SYS_ADMIN)
		}
	}
	return keep
}

// giveUpPrivileges gives up every capability, for good and in all threads: the
// sockets are open, and what is left to do needs none. There are exceptions. A
// QEMU driver that runs in this process starts and ends the VM. Others can be kept
// at hand, but not in effect until they are taken up: NET_ADMIN for the port guard's
// counters, and for putting the pod back at the end, see takeUpPrivileges, and what
// hotplug takes. See also withPrivileges.
func giveUpPrivileges(embedded bool, keep ...cap.Value) error {
	if embedded {
		return nil
	}
	// Otherwise root would get them back by an execve(2).
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	had, left := cap.GetProc(), cap.NewSet()
	for _, c := range keep {
		if has, err := had.GetFlag(cap.Permitted, c); err != nil || !has {
			continue
		}
		if err := left.SetFlag(cap.Permitted, true, c); err != nil {
			return fmt.Errorf("keep %s: %w", c, err)
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

// withPrivileges runs fn with these capabilities in effect in its thread alone, as far
// as they were kept.
func withPrivileges(fn func() error, these ...cap.Value) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had, with [2]unix.CapUserData
	if err := unix.Capget(&header, &had[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	with = had
	for _, c := range these {
		with[c/32].Effective |= had[c/32].Permitted & (1 << (c % 32))
	}
	if with == had {
		return fn()
	}
	if err := unix.Capset(&header, &with[0]); err != nil {
		return fmt.Errorf("take up capabilities: %w", err)
	}
	defer func() {
		if e := unix.Capset(&header, &had[0]); e != nil && err == nil {
			err = fmt.Errorf("give up capabilities: %w", e)
		}
	}()
	return fn()
}
