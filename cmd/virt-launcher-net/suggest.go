package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// suggestVerb adds to a complaint the verbs below cmd that who typed the first of args
// may have meant.
func suggestVerb(err error, cmd *cobra.Command, args []string) error {
	if err == nil || len(args) == 0 {
		return err
	}
	cmd.SuggestionsMinimumDistance = typos
	return didYouMean(err, cmd.SuggestionsFor(args[0]))
}

// suggestFlag adds to a complaint about a flag that does not exist those of cmd that may
// have been meant.
func suggestFlag(cmd *cobra.Command, err error) error {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok {
		return err
	}
	// Of one dash, such as -netns, pflag reads a letter at a time.
	typed := unknown.GetSpecifiedName()
	if letters := unknown.GetSpecifiedShortnames(); len(letters) > 1 {
		typed, _, _ = strings.Cut(letters, "=")
	}
	if len(typed) < 2 {
		return err
	}
	flags := &cobra.Command{SuggestionsMinimumDistance: typos} // which can tell what is near to a command's name
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		_, tail, _ := strings.Cut(f.Name, "-")
		flags.AddCommand(&cobra.Command{Use: f.Name, SuggestFor: []string{tail}, Run: func(*cobra.Command, []string) {}})
	})
	near := flags.SuggestionsFor(typed)
	for i := range near {
		near[i] = "--" + near[i]
	}
	if verb, _, err := cmd.Root().Find([]string{typed}); err == nil && verb.HasParent() && len(near) == 0 { // as of --version
		near = []string{verb.Name()}
	}
	return didYouMean(err, near)
}

// typos are how many letters may be wrong.
const typos = 2

// suggestedError is a complaint with what may have been meant.
type suggestedError struct {
	error
	names []string
}

func (e suggestedError) Error() string {
	return e.error.Error() + ": did you mean " + strings.Join(e.names, " or ") + "?"
}
func (e suggestedError) Unwrap() error { return e.error }

func didYouMean(err error, names []string) error {
	if len(names) == 0 {
		return err
	}
	return suggestedError{err, slices.Compact(names)}
}
