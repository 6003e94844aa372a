package main

import (
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/mammoth-os/mammoth/appmaster"
	"github.com/mammoth-os/mammoth/dynamicdeploy"
)

// settling is about how long a master takes until it has its instances, and does little more than wait. What of the
// program only its start has used is given back then.
const settling = 5 * time.Second

// appmasterCommand holds the application masters that ship with Mammoth. The ResourceManager starts them; a person
// has no use for them.
func (c *cli) appmasterCommand() *cobra.Command {
	parent := group("appmaster", "Run an application master", c.dynamicDeployCommand())
	parent.Hidden = true
	return parent
}

func (c *cli) dynamicDeployCommand() *cobra.Command {
	flags := &daemonFlags{}
	cmd := &cobra.Command{
		Use:   "dynamicdeploy",
		Short: "Keep the instances of one app running; the ResourceManager starts it",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := flags.load(c, cmd)
			if err != nil {
				return err
			}
			c.spareMemory(smallHeap)
			spareProgram()
			settled := time.AfterFunc(settling, spareProgram)
			defer settled.Stop()
			master, err := appmaster.FromEnvironment()
			if err != nil {
				return usageError{err}
			}
			log = log.With(slog.String("app", master.App), slog.Int("attempt", int(master.Attempt)))
			master.Log = log
			err = dynamicdeploy.Run(cmd.Context(), dynamicdeploy.Config{Master: master, Log: log})
			if errors.Is(err, appmaster.ErrSuperseded) || cmd.Context().Err() != nil {
				return nil
			}
			return err
		},
	}
	flags.add(cmd, "info")
	return cmd
}
