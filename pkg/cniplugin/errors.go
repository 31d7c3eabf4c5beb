package cniplugin

import (
	"context"
	"errors"
	"io/fs"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
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

// fail is an error as CNI has it: a message that says what was to be done, and why it
// was not.
func fail(code uint, message string, why error) error {
	switch {
	case errors.As(why, new(*types.Error)):
		return why
	case errors.Is(why, context.DeadlineExceeded), errors.Is(why, context.Canceled):
		code = types.ErrTryAgainLater
	case errors.Is(why, statedir.ErrNoNamespace):
		return types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_NETNS is no network namespace", why.Error())
	}
	return types.NewError(code, message, why.Error())
}

// isGone tells whether the network namespace that was to be entered is no more.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, statedir.ErrNoNamespace)
}
