package journal

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/packet"
)

// Serve is conn.Run with a Loop whose Error may be left out, and keeps that it
// runs and what goes wrong.
func (j *Journal) Serve(ctx context.Context, conn *packet.Conn, l packet.Loop) error {
	set := func(serving bool) {
		j.Write(func(Entry) { j.status.Serving = serving })
	}
	set(true)
	defer set(false)
	l.Error = j.outlive
	err := conn.Run(ctx, l)
	if err != nil {
		err = fmt.Errorf("serve %s on %s: %w", j.protocol, conn.Name(), err)
		j.Write(func(e Entry) { e.Error(err) })
	}
	return err
}

// outlive deals with an error of receiving.
func (j *Journal) outlive(err error) {
	switch {
	case errors.Is(err, packet.ErrTooLong):
		j.Refuse(BadFrame)
	case errors.Is(err, unix.ENETDOWN):
		j.log.Debug("interface is down") // it may come up again
	default:
		j.Fail(fmt.Errorf("receive: %w", err))
	}
}

// Unsent counts and keeps that an answer could not be sent.
func (j *Journal) Unsent(err error) {
	j.Refuse(Unsent)
	j.Fail(fmt.Errorf("send: %w", err))
}
