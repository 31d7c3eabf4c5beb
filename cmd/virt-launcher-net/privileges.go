package main

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// giveUpPrivileges gives up every capability, for good and in all threads: the
// sockets are open, and what is left to do needs none. There are exceptions. A
// QEMU driver that runs in this process starts and ends the VM. What is kept stays
// at hand, but not in effect until it is taken up: NET_ADMIN for the port guard's
// counters, see withNetAdmin, and for putting the pod back at the end, see
// takeUpPrivileges.
func giveUpPrivileges(embedded bool, kept ...cap.Value) error {
	if embedded {
		return nil
	}
	// Otherwise root would get them back by an execve(2).
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	left := cap.NewSet()
	for _, c := range kept {
		if had, err := cap.GetProc().GetFlag(cap.Permitted, c); !had || err != nil {
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

// keptPrivileges are the capabilities that are needed once the network is served.
func (p *program) keptPrivileges() (kept []cap.Value) {
	if p.listen != "" || p.hook.RestoreAfter {
		kept = append(kept, cap.NET_ADMIN)
	}
	return kept
}

// takeUpPrivileges puts what was kept in effect, in all threads.
func takeUpPrivileges() error {
	set := cap.GetProc()
	if err := set.Fill(cap.Effective, cap.Permitted); err != nil {
		return fmt.Errorf("take up capabilities: %w", err)
	}
	if err := set.SetProc(); err != nil {
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
