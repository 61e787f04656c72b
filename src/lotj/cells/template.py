"""What ``lotj cell new`` writes."""

TEMPLATE = """# A robot cell. Everything is in SI units and in the robot's base frame, +z up.
name = "my-cell"                          # stored with every trajectory
env = "my_package:MyCell-v0"              # module:Id, for gymnasium.make
# connector_argument = "connector"        # simulators only: the keyword that takes the connector's name
# expert = "my_package:expert"            # who collects, called with (cell, noise, speed, beside);
                                          # without it: `lotj cell calibrate`, then the captured pose is driven to

[kwargs]                                  # of gymnasium.make
# url = "http://127.0.0.1:5000"

[observation]                             # paths into an observation: a/b, a[0:3]
image = "images/wrist_1"                  # (H, W, 3) uint8; "render" takes the environment's own render()
# crop = [0, 80, 480, 480]                # top, left, height, width, px; the centre square by default
# state = ["state/tcp_pose[0:3]"]         # proprioception for the policy; none by default
tcp_pose = "state/tcp_pose"               # x, y, z first
tcp_force = "state/tcp_force"             # of the plug on the fingers; "none" where nothing measures it
tcp_torque = "state/tcp_torque"           # likewise
# force_sign = -1                         # where the sensor tells the force of the fingers on the plug

[action]
components = [0, 1, 2]                    # which components of an action move along x, y, z
# others = 0.0                            # what the others are held at
# metres_per_unit = 0.005                 # what an action of 1 asks for in one step

[control]
# rate_hz = 10.0                          # steps a second
# compliance = "impedance"                # or "admittance": what keeps contact gentle within a step
horizon = 20                              # steps of a trial

[limits]                                  # the safety layer holds any policy to them
# workspace_low = [0.4, -0.1, 0.02]       # m: the tool's target never leaves this box
# workspace_high = [0.6, 0.1, 0.2]
# step = 0.01                             # m: the longest step
# force = 20.0                            # N: above it the robot backs off and the trial ends; inf without a sensor
# torque = 2.0                            # N m: likewise
contact = 3.0                             # N: what counts as contact for the budgets
trial_impulse = 100.0                     # N s of contact in a trial
practice_impulse = 10000.0                # N s of contact in a whole practice
stale_images = 5                          # so many identical pictures in a row are a frozen camera; 0 never

[reset]
retract = true                            # pull the plug out along +z after a trial, before the cell's own reset
retract_height = 0.03                     # m
retract_steps = 30                        # more than that is a jammed plug
scenarios = false                         # reset(options={"scenario": "I" or "II"}) is honoured

[success]                                 # for collection and evaluation only; practice never reads it
from = "ask"                              # "info/<key>", "reward", "pose" (calibrated), or "ask" a person
# above = 0.5                             # the number at "info/<key>" that is success is above this
# dislodged = "info/<key>"                # tells when the plug slipped in the gripper
"""
