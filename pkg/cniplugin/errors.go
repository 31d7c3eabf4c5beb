package cniplugin

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

// Codes of errors that the specification leaves to the plugin, from 100, and that of
// STATUS. They do not change.
const (
	codeUnavailable   = 50
	codeNoAnnotations = 100 // the runtime passes none
	codePod           = 101 // what the pod asks for can't be done
	codePrepare       = 102
	codeCheck         = 103 // what was prepared is not as it was
	codeRestore       = 104
)

// fail is an error as CNI has it: what was to be done, and why it was not. What was
// waited for in vain may be there when the runtime tries again.
func fail(code uint, message string, why error) error {
	if errors.As(why, new(*types.Error)) {
		return why
	}
	if errors.Is(why, context.DeadlineExceeded) || errors.Is(why, context.Canceled) {
		code = types.ErrTryAgainLater
	}
	details := why.Error()
	if errors.Is(why, unix.EROFS) || hasNoRoom(why) {
		details += ": the plugin's state directory on the node has to be writable, with room in it"
	}
	return types.NewError(code, message, details)
}

// hasNoRoom tells whether err is that a disk is full.
func hasNoRoom(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
