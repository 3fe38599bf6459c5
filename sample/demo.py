"""A local page: type a prompt, watch the motion, compare models.

    python -m sample.demo
    python -m sample.demo --model_path save/base --compare save/sopo --port 8000

Opens on http://127.0.0.1:7860 and serves this machine alone, unless --host says otherwise. Without
--model_path it takes the small model that comes with the project.
"""

from utils.start import entry_point

from dataclasses import dataclass

from model.checkpoint_files import ModelPathOptions
from model.families import GeneratorOptions
from model.shipped import MODEL_FILE, REWARD_FILE, SHIPPED
from rewards.tmr import TMRPathOptions
from sample.live.server import open_server
from sample.live.studio import Studio
from utils.options import option, parse_options, with_default

OWN = str(SHIPPED / MODEL_FILE)


@dataclass
class Options(ModelPathOptions, GeneratorOptions, TMRPathOptions):
    """Sampler, steps, guidance and seed are what the page starts with."""

    model_path: str = with_default(OWN, "checkpoint; by default the small one of the project")
    compare: list[str] = option([], "further checkpoints, shown beside it")
    reward_path: str = with_default(
        "", "TMR that keeps the best of several motions; none = that of the project's own model"
    )
    host: str = option("127.0.0.1", "address to listen on; others than this machine reach 0.0.0.0")
    port: int = option(7860, "port to listen on; 0 = any that is free", minimum=0, maximum=65535)


@entry_point
def main() -> None:
    options = parse_options(Options, description=__doc__)
    reward_path = options.reward_path
    if options.model_path == OWN:
        reward_path = reward_path or str(SHIPPED / REWARD_FILE)
    studio = Studio.load([options.model_path, *options.compare], options, reward_path)
    with open_server(studio, options.host, options.port) as server:
        print(f"http://{options.host}:{server.server_port}  (Ctrl+C ends it)", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
