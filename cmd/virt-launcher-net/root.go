package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/virt-launcher-net/virt-launcher-net/internal/settings"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prestart"
)

// program holds what the flags say.
type program struct {
	hook      prestart.Hook
	output    string
	logFormat string
	logLevel  slog.Level
	listen    string
	hotplug   bool
	waiting   []waitingFlag
}

// newRoot returns the command that has all verbs. Those that the command line does not
// name have no flags and no help, which would take more time than many a verb; nil: all have.
func newRoot(args []string) *cobra.Command {
	p := &program{}
	root := &cobra.Command{
		Use:   "virt-launcher-net",
		Short: "Give a VM in a Kubernetes pod the pod's network",
		Long: `virt-launcher-net gives the VM in a pod the pod's network. It reads what the CNI
gave, connects a tap for the VM with the pod's interface, serves the pod's address to
the VM by DHCP, and attaches the NIC to the libvirt domain. Run it in the pod's
network namespace, or name that with --netns.`,
		Example: `  virt-launcher-net plan                      # print what would be done
  virt-launcher-net run --domain vm.xml       # do everything, until the VM stops
  virt-launcher-net status                    # print the state of links, lease and server
  virt-launcher-net restore                   # put the pod back as the CNI left it`,
		Args:              usageArgs(cobra.NoArgs),
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: p.setUp,
		RunE:              func(cmd *cobra.Command, _ []string) error { return withoutVerb(cmd) },
	}
	flags := root.PersistentFlags()
	flags.VarP(p.interfaceFlag(), "interface", "i", "pod `interface`, repeatable, the primary one first (default: the one with the default route; without one, the only one that is up, else eth0)")
	flags.StringVar(&p.hook.Netns, "netns", "", "`path` of the pod's network namespace, such as /proc/42/ns/net (default: the current one)")
	flags.StringVar(&p.hook.StateDir, "state-dir", "", "`directory` of the records and the control socket (default "+prepare.DefaultStateDir+"; with --netns a directory below it for that namespace)")
	flags.VarP(settings.Choice("text", func(s string) { p.output = s }, "text", "json"), "output", "o", "what to print on standard output")
	flags.Var(settings.Choice("text", func(s string) { p.logFormat = s }, "text", "json"), "log-format", "how to log on standard error")
	flags.Var(&settings.Value{Kind: "level", Text: "info", Parse: func(s string) error {
		if !slices.Contains([]string{"debug", "info", "warn", "error"}, strings.ToLower(s)) {
			return errors.New("want debug, info, warn or error")
		}
		return p.logLevel.UnmarshalText([]byte(s))
	}}, "log-level", "what to log: debug, info, warn or error")
	for _, v := range p.verbs() {
		if len(args) > 0 && args[0] == v.name() {
			root.CompletionOptions.DisableDefaultCmd = true // it has the texts of four shells
		}
		root.AddCommand(p.command(v, args == nil || slices.Contains(args, v.name())))
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{suggestFlag(cmd, err)} })
	return root
}

// withoutVerb helps who only looks. Flags alone are a mistake, which must not look like a
// success to a probe: of "--netns status" the verb is the flag's value.
func withoutVerb(cmd *cobra.Command) (err error) {
	if cmd.Flags().NFlag() == 0 {
		return cmd.Help()
	}
	err = usagef("there is no command: name one, such as plan or status (see --help)")
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if verb, _, e := cmd.Find([]string{f.Value.String()}); e == nil && verb != cmd {
			err = usagef("there is no command: --%s has %q as its value", f.Name, f.Value)
		}
	})
	return err
}

// usageArgs makes a complaint about arguments a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check != nil {
			if err := check(cmd, args); err != nil {
				return usageError{suggestVerb(err, cmd, args)}
			}
		}
		return nil
	}
}

// addStrict adds the verbs that cobra makes itself. Where these would print help
// instead of what was asked for, the command line is wrong.
func addStrict(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "completion":
			c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() } // else its arguments are not looked at
			for _, shell := range append(c.Commands(), c) {
				shell.Args = usageArgs(shell.Args)
			}
		case "help":
			c.Args = func(_ *cobra.Command, args []string) error {
				if below, left, err := root.Find(args); err != nil || len(left) > 0 {
					return usageError{suggestVerb(fmt.Errorf("no help for %q", strings.Join(args, " ")), below, left)}
				}
				return nil
			}
		}
	}
}

// setUp makes the logger and checks what can be known to be wrong from the
// command line alone.
func (p *program) setUp(cmd *cobra.Command, _ []string) error {
	var empty []string
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Value.String() == "" {
			empty = append(empty, "--"+f.Name)
		}
	})
	if len(empty) > 0 {
		return usagef("%s needs a value: give it one or leave it out", strings.Join(empty, ", "))
	}
	options := &slog.HandlerOptions{Level: p.logLevel}
	newHandler := func(w io.Writer) slog.Handler {
		if p.logFormat == "json" {
			return slog.NewJSONHandler(w, options)
		}
		return slog.NewTextHandler(w, options)
	}
	p.hook.Log = slog.New(newHandler(cmd.ErrOrStderr()))
	if l, ok := cmd.ErrOrStderr().(*logWriter); ok {
		l.newHandler = newHandler
	}
	p.hook.Version = version
	if p.hotplug {
		p.hook.Hotplug = hotplug()
	}
	err := p.setPerInterface()
	if err == nil {
		err = p.hook.Validate()
	}
	if err != nil {
		return usageError{err}
	}
	return nil
}
