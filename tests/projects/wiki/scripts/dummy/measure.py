import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--value", type=float)
print(f"performance: {parser.parse_args().value} seconds")
