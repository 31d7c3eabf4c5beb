package packet

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ready waits until a socket can be read, or for an alarm. It is an epoll of its own in
// that of the Go runtime. The runtime would wait for the socket to be writable as well,
// and be woken each time that a guest takes a frame of ours; and its timers wake threads
// when they are set.
type ready struct {
	file  *os.File // the epoll
	raw   syscall.RawConn
	timer *os.File
	clock syscall.RawConn // the timer's
	due   time.Time       // when the alarm goes off; zero: none is set
}

// newReady makes one for a socket. Close it.
func newReady(socket int) (_ *ready, err error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	// Without it the runtime would take it for a file that is always ready.
	if err := unix.SetNonblock(epoll, true); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(epoll))
	}
	r := &ready{file: os.NewFile(uintptr(epoll), "epoll")}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	r.timer = os.NewFile(uintptr(timer), "timerfd")
	for _, fd := range []int{socket, timer} {
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
			return nil, os.NewSyscallError("epoll_ctl", err)
		}
	}
	if r.raw, err = r.file.SyscallConn(); err != nil {
		return nil, err
	}
	r.clock, err = r.timer.SyscallConn()
	return r, err
}

func (r *ready) close() error {
	err := r.file.Close()
	if r.timer != nil {
		err = errors.Join(err, r.timer.Close())
	}
	return err
}

// errQuiet is that nothing has come until the alarm went off.
var errQuiet = errors.New("nothing has come")

// alarm has wait return after a while, unless an alarm is set already.
func (r *ready) alarm(after time.Duration) error {
	if !r.due.IsZero() {
		return nil
	}
	r.due = time.Now().Add(after)
	var err error
	if r.clock.Control(func(fd uintptr) {
		err = timerfdSettime(fd, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(after))})
	}) != nil {
		return os.ErrClosed
	}
	return os.NewSyscallError("timerfd_settime", err)
}

// wait tries, again and again when there may be something, until try returns true.
// The error is errQuiet, once for each alarm, os.ErrDeadlineExceeded or os.ErrClosed.
func (r *ready) wait(try func() bool) error {
	quiet := false
	err := r.raw.Read(func(uintptr) bool {
		if try() {
			return true
		}
		quiet = !r.due.IsZero() && !time.Now().Before(r.due)
		return quiet
	})
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case err != nil: // for a closed file the poller has no public error
		return os.ErrClosed
	case quiet:
		r.due = time.Time{}
		return errQuiet
	}
	return nil
}
