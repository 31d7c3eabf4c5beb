package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// connectTimeout is how long the VM may take to accept. Its kernel does that, if it
// runs.
const connectTimeout = 10 * time.Second

// giveUp is how long the VM may leave unconfirmed what it was sent, once the client has ended:
// a VM that is paused for less goes on. Without it the kernel tries for a quarter of an hour.
// Before that it would cut off a program that lives and does not read (tcp_probe_timer,
// net/ipv4/tcp_timer.c): see mute. Where nothing is under way, Go's keep-alive finds within
// three minutes that the VM is gone.
const giveUp = 2 * time.Minute

// mute is how long the VM may confirm nothing at all while something is to be sent to it. A
// kernel whose program does not read confirms each probe for room, the last of which are two
// minutes apart (TCP_RTO_MAX, include/net/tcp.h): one of them may be lost.
const mute = 5 * time.Minute

// Forwarder listens on the loopback. Serve it, then Close it.
type Forwarder struct {
	log       *slog.Logger
	vm        netip.Addr
	inNetns   func(func() error) error
	giveUp    time.Duration
	mute      time.Duration
	lines     *rate.Limiter // of what is logged of single connections
	listeners []listener
}

type listener struct {
	*net.TCPListener
	to netip.AddrPort
}

// Listen listens on these ports of both loopback addresses, in the network namespace of
// the calling thread, for connections to the VM at its address in the pod. inNetns runs
// a function in that namespace, later and from any goroutine; nil: it is the process's
// own. log may be nil. An error names the port, and nothing listens.
func Listen(ctx context.Context, log *slog.Logger, vm netip.Addr, ports []Port, inNetns func(func() error) error) (*Forwarder, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if inNetns == nil {
		inNetns = func(f func() error) error { return f() }
	}
	if !vm.IsValid() {
		return nil, errors.New("forward ports: no address of the VM is given")
	}
	f := &Forwarder{log: log, vm: vm, inNetns: inNetns, giveUp: giveUp, mute: mute, lines: rate.NewLimiter(1, 10)}
	for _, p := range ports {
		for _, loopback := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
			l, err := new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(loopback, p.Loopback).String())
			if loopback.Is6() && (errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EAFNOSUPPORT)) {
				continue // the pod has no IPv6
			}
			if errors.Is(err, unix.EADDRNOTAVAIL) {
				err = fmt.Errorf("%w: the pod's loopback is down: ip link set lo up", err)
			}
			if errors.Is(err, unix.EADDRINUSE) {
				err = fmt.Errorf("%w: a process of the pod listens there; choose another port before the VM's, as in PORT:%d", err, p.VM)
			}
			if errors.Is(err, unix.EACCES) {
				err = fmt.Errorf("%w: this needs the capability NET_BIND_SERVICE, or another port, such as %d:%d", err, 8000+p.Loopback, p.VM)
			}
			if err != nil {
				return nil, errors.Join(fmt.Errorf("forward port %d: %w", p.Loopback, err), f.Close())
			}
			f.listeners = append(f.listeners, listener{l.(*net.TCPListener), netip.AddrPortFrom(vm, p.VM)})
		}
	}
	return f, nil
}

// Serve passes connections on until ctx ends, which ends them, too, and is no error. When it
// has returned nothing listens.
func (f *Forwarder) Serve(ctx context.Context) error {
	var open sync.WaitGroup // connections, which end with ctx
	defer open.Wait()
	running, ctx := errgroup.WithContext(ctx)
	open.Go(func() { // an accept ends a moment before its socket is closed, so who closes is waited for
		<-ctx.Done()
		_ = f.Close()
	})
	for _, l := range f.listeners {
		running.Go(func() error { return f.accept(ctx, l, &open) })
	}
	return running.Wait()
}

// accept passes on what connects to one port.
func (f *Forwarder) accept(ctx context.Context, l listener, open *sync.WaitGroup) error {
	for {
		conn, err := l.AcceptTCP()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, unix.ECONNABORTED):
			continue
		case errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM):
			f.log.Warn("can't accept a connection to forward: trying again", "port", l.Addr(), "error", err)
			select { // until others have ended; nothing tells when
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		case err != nil:
			return fmt.Errorf("forward port %s: %w", l.Addr(), err)
		}
		open.Go(func() {
			if err := f.pass(ctx, conn, l.to); err != nil {
				level := slog.LevelWarn
				if !f.lines.Allow() { // a VM that answers nobody, and clients that try again and again
					level = slog.LevelDebug
				}
				f.log.Log(ctx, level, "can't forward a connection to the VM", "to", l.to, "error", err)
			}
		})
	}
}

// pass connects to the VM, and copies both ways until both are done.
func (f *Forwarder) pass(ctx context.Context, conn *net.TCPConn, to netip.AddrPort) error {
	defer conn.Close()
	vm, err := f.connect(ctx, to)
	if err != nil {
		_ = conn.SetLinger(0) // the peer learns by a reset that there is none
		return err
	}
	defer vm.Close()
	var both sync.WaitGroup
	both.Go(func() {
		passOn(vm, conn)
		f.bound(vm)
	})
	both.Go(func() { passOn(conn, vm) })
	done := make(chan struct{})
	go func() {
		both.Wait()
		close(done)
	}()
	look := time.NewTicker(f.mute / 10)
	defer look.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			conn.Close()
			vm.Close()
			<-done
			return nil
		case <-look.C: // the kernel tells nobody
			if f.isMute(vm) {
				_ = vm.SetLinger(0)
				vm.Close()
				<-done
				return fmt.Errorf("the VM has confirmed nothing that it was sent for %s: it is taken for dead", f.mute)
			}
		}
	}
}

// isMute tells whether the VM has let all go unanswered for too long.
func (f *Forwarder) isMute(vm *net.TCPConn) (mute bool) {
	raw, err := vm.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) { // an error: it has ended
		i, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		mute = err == nil && i.Unacked+i.Notsent_bytes > 0 && time.Duration(i.Last_ack_recv)*time.Millisecond >= f.mute
	})
	return mute
}

// passOn copies until from ends, and then ends to. A reset is passed on as one.
func passOn(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		_ = to.SetLinger(0)
		to.Close()
		from.Close()
		return
	}
	_ = to.CloseWrite()
}

// bound has the kernel end the connection if the VM does not confirm what it was sent.
func (f *Forwarder) bound(vm *net.TCPConn) {
	raw, err := vm.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // an error: it has ended
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(f.giveUp.Milliseconds())) // it is TCP
	})
}

// connect is net.Dialer's, of a socket that is in the pod's network namespace.
func (f *Forwarder) connect(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	conn, err := f.open(to)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	_ = conn.SetDeadline(time.Now().Add(connectTimeout)) // it is open, and TCP
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	started := false
	waitErr := raw.Write(func(fd uintptr) bool {
		if !started {
			started = true
			err = unix.Connect(int(fd), sockaddr(to))
			return !errors.Is(err, unix.EINPROGRESS)
		}
		var errno int
		if errno, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && errno != 0 {
			err = unix.Errno(errno)
		}
		return true
	})
	if errors.Is(waitErr, os.ErrDeadlineExceeded) {
		if waitErr, err = context.Cause(ctx), nil; waitErr == nil {
			waitErr = fmt.Errorf("no answer within %s", connectTimeout)
		}
	}
	if err := errors.Join(waitErr, os.NewSyscallError("connect", err)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, conn.SetDeadline(time.Time{})
}

// open opens a socket that is not connected yet.
func (f *Forwarder) open(to netip.AddrPort) (conn *net.TCPConn, err error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd := -1
	err = f.inNetns(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
		return os.NewSyscallError("socket", err)
	})
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "to the VM, port "+strconv.Itoa(int(to.Port())))
	defer file.Close() // the connection has a descriptor of its own
	c, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

func sockaddr(to netip.AddrPort) unix.Sockaddr {
	if to.Addr().Is6() {
		return &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	}
	return &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
}

// Close ends the listening. Serve has done it if it has ended.
func (f *Forwarder) Close() error {
	var errs []error
	for _, l := range f.listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
