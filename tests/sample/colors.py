"""How far colours are apart, for readers of all kinds of sight. Colours are RGB, 0 to 255."""

import numpy as np

Color = tuple[int, int, int]

# On linear RGB, colour blindness at full severity: Machado, Oliveira and Fernandes 2009
SIGHTS = {
    "full": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
WHITE = [0.9505, 1.0, 1.089]  # D65


def linear(color: Color) -> np.ndarray:
    value = np.array(color) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def luminance(color: Color) -> float:
    """Relative, of WCAG 2."""
    return float(linear(color) @ XYZ[1])


def contrast(first: Color, second: Color) -> float:
    """1 to 21, of WCAG 2; text is readable from 4.5."""
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def distance(first: Color, second: Color, sight: str) -> float:
    """Delta E of CIE 1976 as a kind of sight sees them; 2.3 is just noticeable."""
    return float(np.linalg.norm(_lab(first, sight) - _lab(second, sight)))


def _lab(color: Color, sight: str) -> np.ndarray:
    seen = np.clip(np.array(SIGHTS[sight]) @ linear(color), 0, 1)
    share = np.array(XYZ) @ seen / WHITE
    x, y, z = np.where(share > 0.008856, np.cbrt(share), 7.787 * share + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])
