package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/mammoth-os/mammoth/internal/manifest"
	"github.com/mammoth-os/mammoth/internal/spec"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

// frameworkCommands show, install and remove framework packages.
type frameworkCommands struct {
	client
	uploads *uploader
	in      io.Reader
}

func (c *frameworkCommands) frameworkCommand() *cobra.Command {
	return group("framework", "Install and remove framework packages, which bring kinds of application masters",
		c.frameworkListCommand(), c.frameworkShowCommand(), c.frameworkInstallCommand(), c.frameworkRemoveCommand())
}

func (c *frameworkCommands) frameworkListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List framework packages, and how many apps have each",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				answer, err := z.frameworks.ListFrameworks(cmd.Context(), &apiv1.ListFrameworksRequest{})
				if err != nil {
					return err
				}
				return c.print(answer, func(w io.Writer) error { return frameworkTable(w, answer.GetFrameworks()) })
			})
		},
	}
}

func frameworkTable(w io.Writer, frameworks []*apiv1.Framework) error {
	t := newTable(w, "NAME", "VERSION", "MASTER", "ENDS", "APPS", "AGE", "DESCRIPTION")
	for _, f := range frameworks {
		p := f.GetPackage()
		t.row(p.GetName(), orDash(p.GetVersion()), masterWords(p.GetMaster()), yes(p.GetMaster().GetEnds()), f.GetApps(), ago(f.GetInstalledAt()), p.GetDescription())
	}
	return t.Flush()
}

// masterWords is what the masters of a framework run.
func masterWords(m *apiv1.MasterKind) string {
	return whatRuns(&apiv1.RoleSpec{Image: m.GetImage(), Command: m.GetCommand()})
}

func (c *frameworkCommands) frameworkShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a framework package, and the schema of the options that its apps have",
		Args:              names("the name of a framework package"),
		ValidArgsFunction: firstArgument(c.completeFrameworks),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				framework, err := z.frameworks.GetFramework(cmd.Context(), &apiv1.GetFrameworkRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return c.print(framework, func(w io.Writer) error { return frameworkText(w, framework) })
			})
		},
	}
}

func frameworkText(w io.Writer, f *apiv1.Framework) error {
	p := f.GetPackage()
	m, r := p.GetMaster(), p.GetMaster().GetResources()
	t := newTable(w)
	t.row("name", p.GetName())
	t.row("version", orDash(p.GetVersion()))
	t.row("description", orDash(p.GetDescription()))
	if m.GetImage() != "" {
		t.row("image", fmt.Sprintf("%s (%s)", m.GetImage(), orDash(shortDigest(m.GetImageDigest()))))
	}
	if words := append(append([]string{}, m.GetCommand()...), m.GetArgs()...); len(words) > 0 {
		t.row("command", strings.Join(words, " "))
	}
	t.row("master", fmt.Sprintf("cpu %s, memory %s, disk %s", cores(r.GetCpuMillis()), size(r.GetMemoryBytes()), size(r.GetDiskBytes())))
	t.row("work", map[bool]string{false: "goes on until it is stopped", true: "has an end"}[m.GetEnds()])
	t.row("apps", f.GetApps())
	switch {
	case f.GetBuiltIn():
		t.row("installed", "with the zone; it is part of Mammoth")
	case f.GetUser() != "":
		t.row("installed", fmt.Sprintf("%s ago by %s", ago(f.GetInstalledAt()), f.GetUser()))
	default:
		t.row("installed", ago(f.GetInstalledAt())+" ago")
	}
	if err := t.Flush(); err != nil || p.GetOptions() == nil {
		return err
	}
	fmt.Fprintln(w, "\noptions:")
	encoder := yaml.NewEncoder(indented{w})
	encoder.SetIndent(2)
	return errors.Join(encoder.Encode(p.GetOptions().AsMap()), encoder.Close())
}

// indented writes lines behind two blanks. Each write has whole lines.
type indented struct{ to io.Writer }

func (i indented) Write(lines []byte) (int, error) {
	text := "  " + strings.ReplaceAll(strings.TrimSuffix(string(lines), "\n"), "\n", "\n  ") + "\n"
	_, err := io.WriteString(i.to, text)
	return len(lines), err
}

func (c *frameworkCommands) frameworkInstallCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install FILE|NAME",
		Short: "Install a framework package from a file, or one that is part of Mammoth by its name",
		Long: `Install adds a kind of application master to the zone, or replaces the package of its name. The zone
goes on meanwhile: masters that run stay, and the next ones are started as the new package says.

  name: ring
  version: "1"
  description: keeps a ring of workers
  master:
    command: [ring]                  # a program of the nodes; or image: a file beside, or NAME:TAG
    resources: {cpu: 100m, memory: 64MiB, disk: 32MiB}
    ends: false                      # true: its master says when its work has ended, and how
  options:                           # the JSON Schema of what an app of it has in its options
    type: object
    properties: {workers: {type: integer, minimum: 1}}

An app names it in its manifest, with "framework: ring", and says in "options" what its master reads.
DynamicDeploy is such a package, and every new zone has it; "mammoth framework install dynamicdeploy"
installs it again once it was removed. "-" is standard input.`,
		Example: "  mammoth framework install ring.yaml\n  mammoth framework install dynamicdeploy",
		Args:    names("a file, or the name of a framework that is part of Mammoth"),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &apiv1.InstallFrameworkRequest{}
			info, err := os.Stat(args[0])
			switch missing := errors.Is(err, fs.ErrNotExist) && args[0] != "-"; {
			case (missing || err == nil && info.IsDir()) && spec.CheckName("a framework", args[0]) == nil:
				request.BuiltIn = args[0]
			case missing:
				return usagef("%s: no such file or directory", args[0])
			default:
				data, err := readFile(c.in, args[0])
				if err != nil {
					return err
				}
				if request.Package, err = manifest.ParseFramework(data); err != nil {
					return usageError{inFile(args[0], err)}
				}
			}
			return c.with(cmd.Context(), func(z *zone) error {
				if named := request.GetPackage().GetMaster().GetImage(); named != "" {
					beside := named
					if !filepath.IsAbs(beside) {
						beside = filepath.Join(folderOf(args[0]), beside)
					}
					image, err := c.uploads.resolveImage(cmd.Context(), named, beside)
					if err != nil {
						return err
					}
					request.Package.Master.Image = image
				}
				framework, err := z.frameworks.InstallFramework(cmd.Context(), request)
				if err != nil {
					return err
				}
				return c.print(framework, func(w io.Writer) error {
					p := framework.GetPackage()
					_, err := fmt.Fprintf(w, "framework %s is installed; \"framework: %s\" in a manifest makes an app of it\n",
						strings.TrimSpace(p.GetName()+" "+p.GetVersion()), p.GetName())
					return err
				})
			})
		},
	}
}

func (c *frameworkCommands) frameworkRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME",
		Short:             "Remove a framework package that no app has",
		Args:              names("the name of a framework package"),
		ValidArgsFunction: firstArgument(c.completeFrameworks),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.with(cmd.Context(), func(z *zone) error {
				framework, err := z.frameworks.RemoveFramework(cmd.Context(), &apiv1.GetFrameworkRequest{Name: args[0]})
				if err != nil {
					return err
				}
				return c.print(framework, func(w io.Writer) error {
					text := fmt.Sprintf("framework %s is removed", args[0])
					if framework.GetBuiltIn() {
						text += fmt.Sprintf("; `mammoth framework install %s` installs it again", args[0])
					}
					_, err := fmt.Fprintln(w, text)
					return err
				})
			})
		},
	}
}
