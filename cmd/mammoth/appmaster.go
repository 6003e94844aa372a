package main

import (
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/mammoth-os/mammoth/appmaster"
	"github.com/mammoth-os/mammoth/dynamicdeploy"
)

// settleTime is about how long a master needs for its instances; later it mostly waits. The memory that only the start has
// used is released then.
const settleTime = 5 * time.Second

// appmasterCommand has the application masters that are part of Mammoth. The ResourceManager starts them, not a person.
func (c *daemonCommands) appmasterCommand() *cobra.Command {
	parent := group("appmaster", "Run an application master", c.dynamicDeployCommand())
	parent.Hidden = true
	return parent
}

func (c *daemonCommands) dynamicDeployCommand() *cobra.Command {
	flags := &daemonFlags{}
	cmd := &cobra.Command{
		Use:   "dynamicdeploy",
		Short: "Keep the instances of one app running; the ResourceManager starts it",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := flags.load(c.streams, cmd)
			if err != nil {
				return err
			}
			c.spareMemory(smallHeap)
			spareProgram()
			settled := time.AfterFunc(settleTime, spareProgram)
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
