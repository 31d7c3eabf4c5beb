package podtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

// Exchange has a client in one namespace connect by TCP to a server in another,
// at an address of that one, and each send the other the given number of bytes
// at the same time. It returns once both have got all of it, unchanged.
func Exchange(ctx context.Context, client, server *NS, address netip.Addr, size int) error {
	var listener *net.TCPListener
	err := server.Do(func() (err error) {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(address, 0)))
		return err
	})
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	// What each side sends does not compress and is not the other's.
	up, down := randomBytes(size), randomBytes(size)
	served := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			err = swap(ctx, conn, down, up)
		}
		served <- err
	}()
	var conn net.Conn
	err = client.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", listener.Addr().String())
		return err
	})
	if err != nil {
		return err
	}
	return errors.Join(swap(ctx, conn, up, down), <-served)
}

func randomBytes(size int) []byte {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(b) // never fails
	return b
}

// swap sends what it has and expects something else, then closes.
func swap(ctx context.Context, conn net.Conn, send, want []byte) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(send)
		sent <- err
	}()
	got := make([]byte, len(want))
	_, err := io.ReadFull(conn, got)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("other bytes came than were sent")
	}
	return errors.Join(err, <-sent)
}
