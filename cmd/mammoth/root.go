package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

const defaultServer = "127.0.0.1:7070"

// streams are a process's standard ones.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// globalFlags are the flags of every command. The root command parses them.
type globalFlags struct {
	server string
	output string
}

// cli makes the root command with all others.
type cli struct {
	*globalFlags
	streams
	env  func(string) string
	args []string
}

// run runs the command in args and returns the exit code.
func run(ctx context.Context, args []string, std streams, env func(string) string) int {
	c := &cli{globalFlags: &globalFlags{}, streams: std, env: env, args: args}
	root := c.rootCommand()
	root.SetArgs(args)
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	return c.exitCode(ctx, root.ExecuteContext(ctx))
}

func (c *cli) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "mammoth",
		Short: "Turn Linux machines into one computer, and keep apps running on it",
		Long: `Mammoth turns a set of Linux machines into one computer and keeps apps running on it.

Start a zone on this machine with "mammoth up", then hand it an app:

  mammoth image pack ./hello -o hello.image --port 8080
  mammoth deploy hello.image --name web --instances 3 --port 8080 --health http:/healthz --wait
  mammoth app show web`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return c.checkGlobalFlags()
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return flagError(cmd, err) })
	flags := root.PersistentFlags()
	server := c.env("MAMMOTH_SERVER")
	if server == "" {
		server = defaultServer
	}
	flags.StringVar(&c.server, "server", server, "the zone's address, or several with commas between, of which the first that answers is used; MAMMOTH_SERVER sets it too")
	flags.StringVarP(&c.output, "output", "o", "table", "how to print: table, json or yaml")
	root.AddGroup(&cobra.Group{ID: "daily", Title: "Daily work:"}, &cobra.Group{ID: "zone", Title: "The zone:"}, &cobra.Group{ID: "daemon", Title: "Daemons of this machine:"})
	add := func(group string, commands ...*cobra.Command) {
		for _, command := range commands {
			command.GroupID = group
			root.AddCommand(command)
		}
	}
	client := newClient(c.globalFlags, c.streams)
	uploads := &uploader{client.dialer, c.in, c.err}
	add("daily",
		(&deploymentCommands{&changer{client}, uploads, c.in}).deployCommand(),
		c.appCommand(client),
		(&imageCommands{client, uploads}).imageCommand())
	simulations := &simulationCommands{client.printer}
	add("zone",
		(&nodeCommands{client}).nodeCommand(),
		(&containerCommands{client}).containerCommand(),
		(&queueCommands{client, c.in}).queueCommand(),
		(&lendingCommands{client, c.in}).lendCommand(),
		(&frameworkCommands{client, uploads, c.in}).frameworkCommand(),
		(&registryCommands{client}).registryCommand(),
		(&eventCommands{client}).eventsCommand(),
		(&storeCommands{client.dialer, client.printer}).storeCommand(),
		simulations.simulateCommand(), simulations.replayCommand())
	up := &upCommands{c.streams, c.env, c.args}
	daemons := &daemonCommands{c.streams, c.env}
	add("daemon",
		up.upCommand(), up.downCommand(),
		daemons.resourceManagerCommand(), daemons.nodeManagerCommand(),
		(&companionCommands{c.streams, c.env}).companionCommand())
	root.AddCommand(client.versionCommand(), daemons.appmasterCommand())
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)))
	must(root.RegisterFlagCompletionFunc("server", cobra.NoFileCompletions))
	return root
}

func (g *globalFlags) checkGlobalFlags() error {
	switch g.output {
	case "table", "json", "yaml":
	default:
		return usagef("%q is not a way to print; --output is table, json or yaml", g.output)
	}
	var servers []string
	for _, server := range strings.Split(g.server, ",") {
		address := strings.TrimSuffix(strings.TrimPrefix(server, "http://"), "/")
		if !strings.Contains(address, ":") {
			address += ":7070"
		}
		if atPort.check(address) != nil {
			return usagef("%q is not the address of a zone; write HOST:PORT as in %s", server, defaultServer)
		}
		servers = append(servers, address)
	}
	g.server = strings.Join(servers, ",")
	return nil
}

// client is what the commands share that ask a zone.
type client struct {
	*dialer
	*printer
	*completions
}

func newClient(flags *globalFlags, std streams) client {
	dialer := &dialer{flags}
	return client{dialer, &printer{flags, std.out, std.err}, &completions{dialer}}
}

// group is a command with subcommands only.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	parent := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	parent.AddCommand(commands...)
	return parent
}

func (p *printer) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			text := fmt.Sprintf("mammoth %s\n", version)
			switch p.output {
			case "json":
				text = fmt.Sprintf("{\n  \"version\": %q\n}\n", version)
			case "yaml":
				text = fmt.Sprintf("version: %q\n", version)
			}
			_, err := fmt.Fprint(p.out, text)
			return err
		},
	}
}

// must is for wiring that fails only by a programming error.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
